// The events, live: a toolbar with the filter, and the list.

import { Component, html } from "./vendor.js";
import { clear, exportRows, runDoctor, select, setFilter, togglePause } from "./actions.js";
import { Icon } from "./icons.js";
import { kindOf } from "./kinds.js";
import { log, set, state } from "./state.js";
import { beginning, clock, clockExact, count, duration, plural, previewOf, shortEvent, sizeOf, visible } from "./text.js";
import { VirtualList } from "./virtual_list.js";

const HEIGHT = 30;
const HEIGHT_NARROW = 54;
const PAGE_STEP = 15;
const narrow = matchMedia("(max-width: 760px)");

export class Events extends Component {
  state = { isAtEnd: true };
  list = null;

  render(_, { isAtEnd }) {
    const { shown } = log;
    const height = narrow.matches ? HEIGHT_NARROW : HEIGHT;
    const active = state.selected === null ? -1 : activeIndex();
    return html`<section class="events" aria-label="Events">
      <${Toolbar} />
      <div class="columns" aria-hidden="true">
        <span>Time</span><span>Channel</span><span>Event</span><span>Payload</span><span class="size">Size</span>
      </div>
      <${VirtualList} id="event-list" label="Events" ref=${(list) => (this.list = list ?? this.list)} count=${shown.length}
        height=${height} removed=${log.removed} sticks=${!log.isPaused} active=${active}
        onEnd=${(end) => this.setState({ isAtEnd: end })} onKey=${(event) => this.key(event)}
        row=${(index) => html`<${Row} key=${shown[index].n} row=${shown[index]} id=${`event-list-${index}`} isActive=${index === active} />`}
        empty=${html`<${Empty} />`} />
      ${!isAtEnd && !log.isPaused &&
      html`<button class="newest" onClick=${() => this.toEnd()}><${Icon} name="down" />Newest</button>`}
    </section>`;
  }

  toEnd() {
    this.list.toEnd();
    this.setState({ isAtEnd: true });
  }

  key(event) {
    if (event.target !== event.currentTarget || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Enter") {
      if (state.selected) select(state.selected, true);
      return;
    }
    if (this.move(event.key)) event.preventDefault();
  }

  /** Moves the selection by a key. Returns whether the key does that. */
  move(key) {
    const last = log.shown.length - 1;
    const at = state.selected === null ? last + 1 : activeIndex();
    const to = { ArrowUp: at - 1, ArrowDown: at + 1, PageUp: at - PAGE_STEP, PageDown: at + PAGE_STEP, Home: 0, End: last }[key];
    if (to === undefined || last < 0) return false;
    const index = Math.max(0, Math.min(last, to));
    select(log.shown[index]);
    this.list.focus();
    if (key === "End") this.toEnd();
    else this.list.reveal(index);
    return true;
  }
}

function activeIndex() {
  const index = log.indexOf(state.selected.n);
  return log.shown[index] === state.selected ? index : -1;
}

function Toolbar() {
  const { isPaused, heldCount, heldDropped } = log;
  const held = heldDropped > 0 ? `${count(heldCount)} held, ${count(heldDropped)} dropped` : `${count(heldCount)} held`;
  return html`<div class="toolbar">
    <div class="field filter">
      <${Icon} name="search" />
      <input id="filter" type="text" placeholder=${narrow.matches ? "Filter" : "Filter: words, channel:orders, -word"} aria-label="Filter events"
        autocomplete="off" spellcheck=${false} value=${log.query} onInput=${(event) => setFilter(event.target.value)} />
      ${log.query
        ? html`<button class="quiet square" onClick=${() => setFilter("")} aria-label="Remove the filter" title="Remove the filter (Esc)"><${Icon} name="close" /></button>`
        : html`<kbd>/</kbd>`}
    </div>
    <span class="tally">${
      log.query ? `${count(log.shown.length)} of ${count(log.size)}` : plural(log.size, "row")
    }</span>
    <button id="pause" class=${isPaused ? "pause on" : "pause"} aria-pressed=${String(isPaused)} onClick=${togglePause} title="Pause the list (space)">
      <${Icon} name=${isPaused ? "play" : "pause"} /><span class="word">${isPaused ? "Resume: " : "Pause"}</span>${isPaused && html`<span>${held}</span>`}
    </button>
    <button class="square" onClick=${exportRows} disabled=${log.shown.length === 0} aria-label="Export as JSON lines" title="Export what is shown as JSON lines"><${Icon} name="download" /></button>
    <button class="square" onClick=${clear} disabled=${log.size === 0} aria-label="Clear the list" title="Clear the list"><${Icon} name="clear" /></button>
  </div>`;
}

function Row({ row, id, isActive }) {
  if (row.type === "gap") return html`<${Gap} row=${row} id=${id} isActive=${isActive} />`;
  if (row.type === "dropped") {
    return html`<div class="row mark dropped" id=${id} role="option" aria-selected="false">
      <span>${plural(row.count, "event")} dropped here: the list was full</span>
    </div>`;
  }
  const { channel, event, data } = row;
  row.preview ??= previewOf(data);
  const isProtocol = /^(pusher|reverb)/.test(event);
  const classes = isProtocol ? "row event protocol" : "row event";
  return html`<div class=${classes} id=${id} role="option" aria-selected=${String(isActive)} onClick=${() => select(row, true)}>
    <time title=${clockExact(row.time)}>${clock(row.time)}</time>
    <span class="name channel-name" data-kind=${kindOf(channel)} title=${beginning(channel, 200)}>${visible(channel)}</span>
    <span class="name event-name" title=${beginning(event, 200)}>${shortEvent(event)}</span>
    <span class="payload">${row.user_id != null && html`<b class="sender" title="Sender">${beginning(String(row.user_id), 40)}</b>`}${row.sealed ? html`<em>encrypted: the master key is not set</em>` : row.preview}</span>
    <span class="size">${sizeOf(row.size)}</span>
  </div>`;
}

function Gap({ row, id, isActive }) {
  const where = row.channels.length === 1 ? visible(row.channels[0]) : plural(row.channels.length, "channel");
  const long = row.downtime == null ? "" : ` for ${duration(row.downtime)}`;
  return html`<div class="row mark gap" id=${id} role="option" aria-selected=${String(isActive)} title=${row.channels.map(visible).join("\n")}>
    <span>${clock(row.time)} Gap: no connection${long}. Events on ${where} in that time are missing.</span>
  </div>`;
}

function Empty() {
  if (log.query && log.size > 0) {
    return html`<div class="empty"><h3>No event matches the filter</h3>
      <p>${plural(log.size, "row is", "rows are")} hidden.</p>
      <button onClick=${() => setFilter("")}>Remove the filter</button></div>`;
  }
  const { problem } = state.connection;
  if (problem !== null) {
    const examine = () => {
      set({ tab: "connection", page: "panel" });
      runDoctor();
    };
    return html`<div class="empty"><h3>No connection to the server</h3>
      <p>${visible(problem)}</p>
      <button onClick=${examine}>Run the doctor</button></div>`;
  }
  if (state.followed.size === 0) {
    return html`<div class="empty"><h3>You follow no channel</h3>
      <p>Click <b>+</b> at a channel, or turn on <b>Follow all</b>. New events appear here.</p>
      <button class="wide-hidden" onClick=${() => set({ page: "channels" })}>Show the channels</button></div>`;
  }
  return html`<div class="empty"><h3>Waiting for events</h3>
    <p>${plural(state.followed.size, "channel is", "channels are")} followed. Send an event from your application, or from this page:</p>
    <button onClick=${() => set({ tab: "publish", page: "panel" })}>Publish an event</button></div>`;
}
