// The bar at the top: the server and the state of the connection.

import { html } from "./vendor.js";
import { Icon } from "./icons.js";
import { log, set, state } from "./state.js";
import { duration, plural, visible } from "./text.js";
import { nextTheme, theme } from "./themes.js";

const WORDS = {
  initialized: "not connected",
  connecting: "connecting",
  connected: "connected",
  unavailable: "unavailable",
  disconnected: "disconnected",
  failed: "failed",
};

export function Bar() {
  const { hello, connection, link } = state;
  const { reconnects } = connection;
  const gaps = log.gapCount;
  const showConnection = () => set({ tab: "connection", page: "panel" });
  const status = link === "open" ? connection.state : "disconnected";
  return html`<header class="bar">
    <h1><img src="icon.svg" alt="" width="22" height="22" /><span>reverb console</span></h1>
    <button class="status" data-state=${status} onClick=${showConnection} title=${connection.problem ?? "Show the connection"}>
      <span class="dot"></span><span role="status">${link === "lost" ? "console not running" : WORDS[status] ?? status}</span>
    </button>
    ${hello &&
    html`<dl class="facts">
      <div class="server"><dt class="sr">Server</dt><dd>${visible(hello.server)}</dd></div>
      ${hello.application && html`<div><dt>app</dt><dd>${visible(hello.application)}</dd></div>`}
      <div class="ping"><dt>round trip</dt><dd>${connection.roundTrip == null ? "–" : duration(connection.roundTrip)}</dd></div>
    </dl>`}
    <span class="push"></span>
    ${hello?.is_demo && html`<span class="tag" title="A demo server with sample events">demo</span>`}
    ${hello?.read_only && html`<span class="tag" title="Started with --read-only: nothing can be sent">read-only</span>`}
    <button class=${reconnects + gaps > 0 ? "quiet outages some" : "quiet outages"} onClick=${showConnection}
      title="Show the history of the connection">
      <${Icon} name="pulse" /><span>${plural(reconnects, "reconnect")}, ${plural(gaps, "gap")}</span>
    </button>
    <button class="quiet square" onClick=${nextTheme} title=${`Theme: ${theme()} (t)`} aria-label=${`Theme: ${theme()}`}>
      <${Icon} name=${{ light: "sun", dark: "moon" }[theme()] ?? "auto"} />
    </button>
    <button class="quiet square" onClick=${() => set({ dialog: "help" })} title="Keys and help (?)" aria-label="Keys and help">
      <${Icon} name="help" />
    </button>
  </header>`;
}
