// The form that publishes an event or triggers a client event, and the list of sent events.

import { html } from "./vendor.js";
import { edit, send } from "./actions.js";
import { allChannels } from "./channels.js";
import { format, JSONError, parse } from "./json.js";
import { set, state } from "./state.js";
import { beginning, clock, previewOf, sizeOf, visible } from "./text.js";

const MOST_CHANNELS_OFFERED = 200;
const encoder = new TextEncoder();

export function PublishView() {
  const { hello, draft } = state;
  if (hello?.read_only) {
    return html`<div class="empty"><h3>This console is read-only</h3><p>Start it without <code>--read-only</code> to send events.</p></div>`;
  }
  const isTrigger = draft.kind === "trigger";
  // The typed text may be newer than the drawn one.
  const change = (values) => set({ draft: { ...state.draft, ...values } });
  const problem = problemOf(draft);
  const submit = (submitted) => {
    submitted.preventDefault();
    const { draft: typed, sending } = state;
    if (problemOf(typed) !== null || sending) return;
    send({ ...typed, event: eventNameOf(typed), channels: channelsOf(typed) });
  };
  return html`<form class="view publish-view" onSubmit=${submit}>
    <div class="segments" role="group" aria-label="How to send">
      <button type="button" aria-pressed=${String(!isTrigger)} onClick=${() => change({ kind: "publish" })}>Publish</button>
      <button type="button" aria-pressed=${String(isTrigger)} onClick=${() => change({ kind: "trigger" })}>Trigger a client event</button>
    </div>
    <p class="hint">${isTrigger
      ? "Sends from client to client, on a private or presence channel that you follow. The console does not receive its own event."
      : "Sends over the HTTP API, as your application does."}</p>
    <label>${isTrigger ? "Channel" : "Channels"}
      <input id="send-channels" type="text" list="channel-names" required spellcheck=${false} autocomplete="off"
        placeholder=${isTrigger ? "private-orders.7" : "news private-orders.7"} value=${draft.channels}
        onInput=${({ target }) => change({ channels: target.value })} /></label>
    <datalist id="channel-names">
      ${allChannels().slice(0, MOST_CHANNELS_OFFERED).map(({ name }) => html`<option value=${name} />`)}
    </datalist>
    <label>Event
      <input id="send-event" type="text" required spellcheck=${false} autocomplete="off"
        placeholder=${isTrigger ? "typing" : "App\\Events\\OrderShipped"} value=${draft.event}
        onInput=${({ target }) => change({ event: target.value })} /></label>
    <label for="send-data">Data</label>
    <${DataField} data=${draft.data} onChange=${(data) => change({ data })} />
    ${!isTrigger &&
    html`<label class="check"><input type="checkbox" checked=${draft.toOthers} onChange=${({ target }) => change({ toOthers: target.checked })} />
      <span>To others only, like <code>toOthers()</code>: this console does not receive it</span></label>`}
    ${!isTrigger && hello?.has_secret === false && html`<p class="problem">Publishing needs the application's secret: set REVERB_APP_SECRET.</p>`}
    <div class="actions">
      <button id="send" type="submit" class="primary" disabled=${problem !== null || state.sending}>${state.sending ? "Sending …" : isTrigger ? "Trigger" : "Publish"}</button>
      <span class="outcome" role="status"><${Outcome} problem=${problem} /></span>
    </div>
    <${History} />
  </form>`;
}

const channelsOf = ({ channels }) => channels.split(/[\s,]+/).filter(Boolean);

function eventNameOf({ kind, event }) {
  return kind === "trigger" && event && !event.startsWith("client-") ? `client-${event}` : event;
}

/** Why the draft can't be sent, or null. */
function problemOf(draft) {
  const channels = channelsOf(draft);
  if (channels.length === 0) return "Name a channel.";
  if (draft.kind === "trigger") {
    if (channels.length > 1) return "A client event goes to one channel.";
    if (!/^(private|presence)-/.test(channels[0])) return "Client events need a private or presence channel.";
    if (!state.followed.has(channels[0])) return "Follow the channel first.";
  }
  if (!draft.event) return "Name the event.";
  return jsonProblem(draft.data) === null ? null : "The data is not JSON.";
}

let checked = { text: null, problem: null };

/** The mistake in a JSON text, or null. Called each time the page is drawn. */
function jsonProblem(text) {
  if (text !== checked.text) checked = { text, problem: check(text) };
  return checked.problem;
}

function check(text) {
  try {
    parse(text);
    return null;
  } catch (error) {
    if (error instanceof JSONError) return error;
    throw error;
  }
}

function DataField({ data, onChange }) {
  const problem = jsonProblem(data);
  const tab = (event) => {
    if ((event.ctrlKey || event.metaKey) && event.key === "Enter") event.currentTarget.form.requestSubmit();
  };
  return html`<textarea id="send-data" rows="8" spellcheck=${false} autocomplete="off" aria-describedby="data-state"
      aria-invalid=${String(problem !== null)} value=${data} onInput=${({ target }) => onChange(target.value)} onKeyDown=${tab}></textarea>
    <div class="data-state">
      <span id="data-state" class=${problem ? "problem" : "fine"}>${
        problem ? `Line ${problem.line}, column ${problem.column}: ${problem.message}` : `JSON, ${sizeOf(encoder.encode(data).length)}`
      }</span>
      <button type="button" class="link" disabled=${problem !== null} onClick=${() => onChange(format(parse(state.draft.data)))}>Format</button>
    </div>`;
}

function Outcome({ problem }) {
  const { sent } = state;
  if (sent?.problem) return html`<span class="problem">${visible(sent.problem)}</span>`;
  if (sent) return html`<span class="fine">Sent at ${clock(sent.time)}</span>`;
  return html`<span class="hint">${problem ?? ""}</span>`;
}

function History() {
  const { history } = state;
  return html`<section class="history" aria-labelledby="history-title">
    <h4 id="history-title">Sent events</h4>
    ${history.length === 0 && html`<p class="hint">This browser tab keeps the events that you send.</p>`}
    <ol>${history.map((entry) => html`<li key=${entry.time}>
      <div class="what">
        <b>${visible(entry.event)}</b> <span>on ${beginning(entry.channels.join(", "), 80)}</span>
        <code>${previewOf(entry.data, 80)}</code>
        ${entry.problem && html`<span class="problem">${visible(entry.problem)}</span>`}
      </div>
      <div class="again">
        <button type="button" disabled=${state.sending} onClick=${() => send(entry)}>Send again</button>
        <button type="button" class="quiet" onClick=${() => edit(entry)}>Edit</button>
      </div>
    </li>`)}</ol>
  </section>`;
}
