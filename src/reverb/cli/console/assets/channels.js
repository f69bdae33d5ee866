// The list of channels: those that have subscribers, and those that the console follows.

import { html } from "./vendor.js";
import { follow, followAll, followSeveral, showChannel, unfollow } from "./actions.js";
import { Icon } from "./icons.js";
import { kindOf } from "./kinds.js";
import { changed, set, state } from "./state.js";
import { count, plural, visible } from "./text.js";
import { VirtualList } from "./virtual_list.js";

const HEIGHT = 36;

/** All channels that are occupied or followed, sorted by name. */
export function allChannels() {
  const known = new Set(state.channels.map((each) => each.name));
  const others = [...state.followed].filter((name) => !known.has(name));
  return [...state.channels, ...others.map((name) => ({ name, kind: kindOf(name) }))].sort(byName);
}

const byName = (one, other) => (one.name < other.name ? -1 : 1);

export function Channels() {
  const channels = allChannels();
  const query = state.channelQuery.trim();
  const shown = query ? channels.filter(({ name }) => name.toLowerCase().includes(query.toLowerCase())) : channels;
  const { followAll: all } = state;
  const submit = (event) => {
    event.preventDefault();
    const name = state.channelQuery.trim(); // which may be newer than what is drawn
    if (!name) return;
    follow(name);
    set({ channelQuery: "" });
  };
  return html`<section class="channels" aria-labelledby="channels-title">
    <div class="head">
      <h2 id="channels-title">Channels <span class="number">${count(Math.max(state.channelTotal, channels.length))}</span></h2>
      <label class="switch" title="Follow each public and private channel as it appears">
        <input type="checkbox" role="switch" checked=${all.on} disabled=${!state.hello?.has_secret} onChange=${(event) => followAll(event.target.checked)} />
        <span>Follow all</span>
      </label>
    </div>
    <form class="find" onSubmit=${submit}>
      <div class="field">
        <${Icon} name="search" />
        <input id="channel-query" type="text" placeholder="Find, or follow by name" aria-label="Find a channel, or follow one by name"
          autocomplete="off" spellcheck=${false} value=${state.channelQuery}
          onInput=${(event) => set({ channelQuery: event.target.value })} />
      </div>
      <button type="submit" class="square" title="Follow the channel of this name" aria-label="Follow the channel of this name">
        <${Icon} name="plus" />
      </button>
    </form>
    ${query ? html`<${Several} channels=${shown} />` : html`<details class="which">
      <summary>Channels for “Follow all”</summary>
      <label>Begins with <input type="text" value=${all.prefix} placeholder="private-orders." spellcheck=${false}
        onChange=${(event) => setWhich("prefix", event)} /></label>
      <label>Except <input type="text" value=${all.exclude} placeholder="*debug*" spellcheck=${false}
        onChange=${(event) => setWhich("exclude", event)} /></label>
      <p class="hint">It never joins presence channels. The console misses events on a new channel until it finds the channel.</p>
    </details>`}
    <${VirtualList} id="channel-list" label="Channels" count=${shown.length} height=${HEIGHT}
      active=${shown.findIndex(({ name }) => name === state.channel)}
      onKey=${(event) => moveChannel(event, shown)}
      row=${(index) => html`<${Row} key=${shown[index].name} channel=${shown[index]} id=${`channel-list-${index}`} />`}
      empty=${html`<${Empty} query=${query} />`} />
  </section>`;
}

/** Follows all channels in the list except presence channels, which the user must join one by one. */
function Several({ channels }) {
  const names = channels.filter(({ kind }) => kind !== "presence").map(({ name }) => name);
  const others = names.filter((name) => !state.followed.has(name));
  return html`<p class="which several">
    <button class="link" disabled=${others.length === 0} onClick=${() => followSeveral(others)}>Follow these ${count(names.length)}</button>
  </p>`;
}

function setWhich(name, event) {
  state.followAll[name] = event.target.value.trim();
  if (state.followAll.on) followAll(true);
  else changed();
}

function moveChannel(event, shown) {
  if (event.target !== event.currentTarget) return;
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (!step || shown.length === 0) return;
  event.preventDefault();
  const at = shown.findIndex(({ name }) => name === state.channel);
  const next = shown[Math.max(0, Math.min(shown.length - 1, at + step))];
  if (next.name !== state.channel) showChannel(next.name);
}

function Row({ channel, id }) {
  const { name, kind, users } = channel;
  const isFollowed = state.followed.has(name);
  const isWaiting = isFollowed && !channel.is_subscribed;
  const isForbidden = kind === "presence" && state.hello?.read_only;
  const shown = visible(name);
  const number = kind === "presence" ? (users ?? channel.subscriptions) : channel.subscriptions;
  const toggle = (event) => {
    event.stopPropagation();
    if (isFollowed) unfollow(name);
    else follow(name);
  };
  return html`<div class="channel" id=${id} role="option" data-kind=${kind} aria-selected=${String(state.channel === name)}
    onClick=${() => showChannel(name)} title=${`${shown} (${kind})`}>
    <${Icon} name=${kind} /><span class="sr">${kind} </span>
    <span class="name">${shown}</span>
    <span class="number" title=${numberTitle(channel, number)}>${number == null ? "" : count(number)}</span>
    <button class=${isWaiting ? "follow waiting" : "follow"} aria-pressed=${String(isFollowed)} disabled=${state.pending.has(name) || isForbidden}
      onClick=${toggle} aria-label=${`Follow ${shown}`}
      title=${isWaiting ? "Not subscribed: the server has not confirmed it" : isFollowed ? "Following: click to stop" : "Follow"}>
      <${Icon} name=${isFollowed ? "check" : "plus"} />
    </button>
  </div>`;
}

export function numberTitle({ kind, is_ours_only }, number) {
  if (number == null) return "";
  if (is_ours_only) return "only this console is subscribed";
  return kind === "presence" ? plural(number, "user") : plural(number, "subscription");
}

function Empty({ query }) {
  if (state.hello?.has_secret === false) {
    return html`<div class="empty"><p>To list channels, the console needs the HTTP API: set REVERB_APP_ID and REVERB_APP_SECRET.</p>
      <p>Follow a channel by its name above.</p></div>`;
  }
  if (query) return html`<p class="empty">No channel has this name. Press Enter to follow <b>${visible(query)}</b> anyway.</p>`;
  return html`<div class="empty">
    <p>No channel has subscribers.</p>
    <p>Open your application in a browser tab, or follow a channel by its name above.</p>
  </div>`;
}
