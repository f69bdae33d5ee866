// The details of an event.

import { html, useMemo, useState } from "./vendor.js";
import { edit, showChannel, showOnly } from "./actions.js";
import { JsonTree } from "./json_tree.js";
import { notify, set, state } from "./state.js";
import { clockExact, sizeOf, visible } from "./text.js";
import * as snippets from "./snippets.js";

const COPIES = [
  ["JSON", snippets.json],
  ["reverb", snippets.command],
  ["curl", (row) => snippets.curl(row, state.hello.server)],
  ["Python", snippets.handler],
];

export function EventView() {
  const row = state.selected;
  if (row === null || row.type !== "event") {
    return html`<div class="empty"><h3>No event selected</h3>
      <p>Click an event, or press <kbd>↑</kbd> or <kbd>↓</kbd>, to see its details.</p></div>`;
  }
  const { channel, event, data, size, user_id, time } = row;
  return html`<div class="view event-view">
    <h3 class="title">${visible(event)}</h3>
    <dl class="details">
      <dt>Channel</dt>
      <dd><button class="link" onClick=${() => showChannel(channel)}>${visible(channel)}</button></dd>
      <dt>Time</dt><dd>${clockExact(time)}</dd>
      <dt>Size</dt><dd>${sizeOf(size)}</dd>
      ${user_id != null && html`<dt>Sender</dt><dd>${visible(user_id)}</dd>`}
    </dl>
    <div class="actions">
      <button onClick=${() => showOnly("event", event)}>Show only this event</button>
      <button onClick=${() => showOnly("channel", channel)}>Show only this channel</button>
      ${!state.hello.read_only && html`<button onClick=${() => edit(asDraft(row))}>Edit and send</button>`}
    </div>
    <${Payload} data=${data} sealed=${row.sealed} key=${row.n} />
    <${Copies} row=${row} />
  </div>`;
}

function Payload({ data, sealed }) {
  return html`<section class="payload-box" aria-labelledby="payload-title">
    <div class="head">
      <h4 id="payload-title">Payload</h4>
      <input id="payload-query" type="text" placeholder="Search" aria-label="Search in the payload" spellcheck=${false} autocomplete="off"
        value=${state.payloadQuery} onInput=${(event) => set({ payloadQuery: event.target.value })} />
    </div>
    ${sealed && html`<p class="hint">This channel is encrypted, and the console has no master key. Set REVERB_ENCRYPTION_MASTER_KEY, and start it again.</p>`}
    <${JsonTree} text=${data} query=${state.payloadQuery} />
  </section>`;
}

function Copies({ row }) {
  const [chosen, setChosen] = useState(0);
  const [name, make] = COPIES[chosen];
  const text = useMemo(() => make(row), [row, chosen]);
  const copied = async () => {
    await snippets.copy(text);
    notify(`Copied as ${name}.`);
  };
  return html`<section class="copies" aria-labelledby="copies-title">
    <div class="head">
      <h4 id="copies-title">Copy as</h4>
      <div class="segments" role="group" aria-label="Copy as">
        ${COPIES.map(([each], index) => html`<button aria-pressed=${String(index === chosen)} onClick=${() => setChosen(index)}>${each}</button>`)}
      </div>
    </div>
    <pre class="snippet" tabindex="0">${text.length > 4000 ? `${text.slice(0, 4000)}…` : text}</pre>
    <button class="primary" onClick=${copied}>Copy</button>
  </section>`;
}

function asDraft({ channel, event, data }) {
  const isClientEvent = event.startsWith("client-");
  return { kind: isClientEvent ? "trigger" : "publish", channels: [channel], event, data };
}
