// The details of a channel, its members, and its actions.

import { html } from "./vendor.js";
import { edit, follow, loadMembers, showOnly, unfollow } from "./actions.js";
import { allChannels, numberTitle } from "./channels.js";
import { Icon } from "./icons.js";
import { state } from "./state.js";
import { plural, visible } from "./text.js";

const KINDS = {
  public: "Everybody can subscribe.",
  private: "Subscribers need authorisation.",
  presence: "Its members see each other.",
  encrypted: "The server can't read its events.",
};

export function ChannelView() {
  const { channel: name, followed, pending } = state;
  if (name === null) {
    return html`<div class="empty"><h3>No channel selected</h3><p>Click a channel in the list to see its details and members.</p></div>`;
  }
  const channel = allChannels().find((each) => each.name === name);
  const kind = channel?.kind ?? "public";
  const isFollowed = followed.has(name);
  const number = channel?.subscriptions;
  return html`<div class="view channel-view" data-kind=${kind}>
    <h3 class="title"><${Icon} name=${kind} />${visible(name)}</h3>
    <dl class="details">
      <dt>Kind</dt><dd>${kind}. ${KINDS[kind]}${channel?.is_cache && " The server keeps its last event, and sends it to new subscribers."}</dd>
      ${number != null && html`<dt>Subscribers</dt><dd>${numberTitle({ ...channel, kind: "any" }, number)}</dd>`}
      ${isFollowed && !channel?.is_subscribed && html`<dt>State</dt><dd>not subscribed: the server has not confirmed it</dd>`}
      ${channel?.users != null && html`<dt>Users</dt><dd>${plural(channel.users, "user")}</dd>`}
    </dl>
    <div class="actions">
      ${!(kind === "presence" && state.hello?.read_only) && html`<button class=${isFollowed ? "" : "primary"} disabled=${pending.has(name)} onClick=${() => (isFollowed ? unfollow(name) : follow(name))}>
        ${isFollowed ? "Stop following" : kind === "presence" ? "Join and follow …" : "Follow"}
      </button>`}
      <button onClick=${() => showOnly("channel", name)}>Show only its events</button>
      ${!state.hello?.read_only &&
      html`<button onClick=${() => edit({ ...state.draft, channels: [name] })}>Publish here</button>`}
    </div>
    ${kind === "presence" && html`<${Members} name=${name} />`}
  </div>`;
}

function Members({ name }) {
  const { isLoading, users = [], error } = state.members ?? { isLoading: true };
  return html`<section class="members" aria-labelledby="members-title">
    <div class="head">
      <h4 id="members-title">Members ${!isLoading && !error && html`<span class="number">${users.length}</span>`}</h4>
      <button disabled=${isLoading} onClick=${() => loadMembers(name)}>Refresh</button>
    </div>
    <p class="hint">From the HTTP API. The members do not see this request.</p>
    ${error && html`<p class="problem">${visible(error)}</p>`}
    ${!isLoading && !error && users.length === 0 && html`<p class="hint">The channel has no members.</p>`}
    <ul>${users.slice(0, 500).map((user) => html`<li><span class="avatar" aria-hidden="true">${[...visible(user)][0]}</span>${visible(user)}</li>`)}</ul>
    ${users.length > 500 && html`<p class="hint">and ${users.length - 500} more</p>`}
  </section>`;
}
