// The page: draws the state, and starts everything else.

import { html, render } from "./vendor.js";
import { start } from "./actions.js";
import { Bar } from "./bar.js";
import { Channels } from "./channels.js";
import { ChannelView } from "./channel_view.js";
import { ConnectionView } from "./connection_view.js";
import { Dialogs } from "./dialogs.js";
import { Events } from "./events.js";
import { EventView } from "./event_view.js";
import { Icon } from "./icons.js";
import { listenToKeys } from "./keys.js";
import { PublishView } from "./publish_view.js";
import { changed, dismiss, onChange, set, state } from "./state.js";
import { visible } from "./text.js";

const TABS = [
  ["event", "Event", EventView],
  ["channel", "Channel", ChannelView],
  ["publish", "Publish", PublishView],
  ["connection", "Connection", ConnectionView],
];

let events = null;

function App() {
  if (state.link === "refused") return html`<${Closed} />`;
  return html`<div class="app" data-page=${state.page}>
    <${Bar} />
    ${state.link === "lost" &&
    html`<p class="banner" role="alert">The console on this machine does not answer. If it has ended, start <code>reverb console</code> again and open the address that it prints.</p>`}
    <main>
      <${Channels} />
      <${Events} ref=${(component) => (events = component ?? events)} />
      <${Panel} />
    </main>
    <${Navigation} />
    <${Notices} />
    <${Dialogs} />
  </div>`;
}

function Panel() {
  const View = TABS.find(([name]) => name === state.tab)[2];
  return html`<aside class="panel">
    <div class="tabs" role="tablist" aria-label="Details" onKeyDown=${moveTab}>
      <button class="quiet square back" onClick=${() => set({ page: "events" })} aria-label="Back to the events"><${Icon} name="back" /></button>
      ${TABS.map(([name, label]) => html`<button role="tab" id=${`tab-${name}`} aria-controls="panel" aria-selected=${String(name === state.tab)}
        tabindex=${name === state.tab ? 0 : -1} onClick=${() => set({ tab: name })}>${label}</button>`)}
    </div>
    <div class="content" id="panel" role="tabpanel" aria-labelledby=${`tab-${state.tab}`} tabindex="-1"><${View} /></div>
  </aside>`;
}

function moveTab(event) {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!step) return;
  event.preventDefault();
  const at = TABS.findIndex(([name]) => name === state.tab);
  const [name] = TABS[(at + step + TABS.length) % TABS.length];
  set({ tab: name });
  document.getElementById(`tab-${name}`).focus();
}

/** The navigation of a narrow screen, which has no three columns. */
function Navigation() {
  const to = (page, tab, label, icon) => {
    const isHere = state.page === page && (tab === null || state.tab === tab);
    const go = () => set(tab === null ? { page } : { page, tab });
    return html`<button aria-current=${isHere ? "page" : null} onClick=${go}><${Icon} name=${icon} />${label}</button>`;
  };
  return html`<nav class="navigation" aria-label="Pages">
    ${to("events", null, "Events", "events")} ${to("channels", null, "Channels", "public")}
    ${to("panel", "publish", "Publish", "send")} ${to("panel", "connection", "Connection", "pulse")}
  </nav>`;
}

function Notices() {
  return html`<div class="notices" role="status">
    ${state.notices.map((notice) => html`<div class=${`notice ${notice.level}`}>
      <span>${visible(notice.text)}</span>
      <button class="quiet square" onClick=${() => dismiss(notice)} aria-label="Close"><${Icon} name="close" /></button>
    </div>`)}
  </div>`;
}

function Closed() {
  return html`<main class="closed">
    <img src="icon.svg" alt="" width="48" height="48" />
    <h1>This address is not complete</h1>
    <p>Open the full address that <code>reverb console</code> prints, with the part after the <code>#</code>. The address changes each time the console starts.</p>
  </main>`;
}

const root = document.getElementById("app");
onChange(() => render(html`<${App} />`, root));
listenToKeys((key) => events?.move(key));
matchMedia("(max-width: 760px)").addEventListener("change", changed);
changed();
start();
