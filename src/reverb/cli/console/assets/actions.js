// The user's actions, and the frames from the console. Only these functions communicate with the console.

import { only } from "./filter.js";
import { asJson } from "./json.js";
import { kindOf } from "./kinds.js";
import { Link, openSession, Refused } from "./link.js";
import { addChange, changed, log, notify, remember, set, state } from "./state.js";

const BACKLOG = 10_000;
const BACKLOG_STEP = 1000;
const MOST_CHANNELS = 1000;

const link = new Link(receive, lost);
/** Rows that arrive while older rows are fetched; null at other times. */
let waiting = null;

export async function start() {
  try {
    await openSession();
  } catch {
    // The console does not answer. The WebSocket fails, too, and the page shows that.
  }
  link.open();
}

// --- frames from the console

function receive(frame) {
  RECEIVERS[frame.type]?.(frame);
  changed();
}

const RECEIVERS = {
  hello(frame) {
    set({ link: "open", hello: frame, followed: new Set(frame.followed) });
    takeState(frame);
    fetchBacklog(frame.log.last);
  },
  state: takeState,
  channels(frame) {
    state.channels = frame.channels;
    state.channelTotal = frame.total;
    state.followed = new Set(frame.channels.filter((each) => each.followed).map((each) => each.name));
  },
  events(frame) {
    for (const event of frame.events) event.type = "event";
    take(frame.events);
  },
  gap(frame) {
    take([frame]);
  },
  dropped(frame) {
    take([{ ...frame, time: Date.now() }]);
  },
  finding(frame) {
    state.doctor.findings = [...state.doctor.findings, frame];
  },
  notice(frame) {
    notify(frame.text, frame.level);
  },
};

function takeState(frame) {
  const before = state.connection;
  const all = frame.follow_all;
  state.followAll = all ? { on: true, prefix: all.prefix, exclude: all.exclude.join(" ") } : { ...state.followAll, on: false };
  state.connection = {
    state: frame.state,
    socketId: frame.socket_id,
    roundTrip: frame.round_trip,
    problem: frame.problem ?? null,
    reconnects: frame.reconnects,
  };
  if (frame.state === before.state && state.connection.problem === before.problem) return;
  addChange({ time: Date.now(), state: frame.state, problem: state.connection.problem });
}

function take(rows) {
  if (waiting === null) log.add(rows);
  else waiting.push(...rows);
}

/** Fetches the entries that the page lacks, the latest first. */
async function fetchBacklog(last) {
  waiting = [];
  const steps = [];
  try {
    const first = Math.max(log.last + 1, last - BACKLOG + 1);
    let before = last + 1;
    while (before > first) {
      const { events } = await link.request("events", { before, count: Math.min(BACKLOG_STEP, before - first) });
      if (events.length === 0) break;
      for (const row of events) row.type ??= "event";
      steps.unshift(events);
      before = events[0].n;
    }
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    waiting = null; // the connection is lost; the next one starts after the last row of the log
    return;
  }
  const rows = [...steps.flat(), ...waiting];
  waiting = null;
  const missing = rows.length > 0 && log.last > 0 ? rows[0].n - log.last - 1 : 0;
  if (missing > 0) rows.unshift({ type: "dropped", count: missing, time: rows[0].time });
  log.add(rows);
  changed();
}

function lost(isRefused) {
  set({ link: isRefused ? "refused" : "lost" });
}

// --- actions of the user

async function ask(what, fields) {
  try {
    await link.request(what, fields);
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    notify(error.message, "error");
  }
}

/** Follows a channel. Asks first for a presence channel, because its members see who joins. */
export async function follow(name, isAgreed = false) {
  if (kindOf(name) === "presence" && !isAgreed) {
    set({ dialog: { join: name } });
    return;
  }
  await whilePending([name], "follow", { presence: kindOf(name) === "presence" });
}

/** Follows as many channels as one request can have. None of them may be a presence channel. */
export async function followSeveral(names) {
  await whilePending(names.slice(0, MOST_CHANNELS), "follow");
}

export async function unfollow(name) {
  await whilePending([name], "unfollow");
}

async function whilePending(channels, what, fields = {}) {
  for (const name of channels) state.pending.add(name);
  changed();
  await ask(what, { channels, ...fields });
  for (const name of channels) state.pending.delete(name);
  changed();
}

/** Follows all channels that have subscribers, or stops that. `exclude` has patterns, separated by spaces. */
export async function followAll(on) {
  const { prefix, exclude } = state.followAll;
  set({ followAll: { on, prefix, exclude } });
  try {
    await link.request("follow_all", { on, prefix, exclude: exclude.split(/\s+/).filter(Boolean) });
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    set({ followAll: { on: false, prefix, exclude } });
    notify(error.message, "error");
  }
}

export function showChannel(name) {
  set({ tab: "channel", page: "panel", channel: name, members: null });
  if (kindOf(name) === "presence") loadMembers(name);
}

export async function loadMembers(name) {
  set({ members: { isLoading: true, users: [] } });
  let members;
  try {
    members = await link.request("members", { channel: name });
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    members = { users: [], error: error.message };
  }
  if (state.channel === name) set({ members });
}

export function setFilter(query) {
  log.setQuery(query);
  changed();
}

export function showOnly(field, name) {
  setFilter(only(log.query, field, name));
  set({ page: "events" });
}

export function togglePause() {
  if (log.isPaused) log.resume();
  else log.pause();
  changed();
}

export function clear() {
  log.clear();
  set({ selected: null });
}

export function select(row, isOpened = false) {
  if (row !== state.selected) state.payloadQuery = "";
  set({ selected: row, tab: "event", page: isOpened ? "panel" : state.page });
}

/** Puts an event into the form. */
export function edit({ kind, channels, event, data, toOthers = false }) {
  const draft = { kind, channels: channels.join(" "), event, data, toOthers };
  set({ draft, tab: "publish", page: "panel", sent: null });
}

export async function send({ kind, channels, event, data, toOthers }) {
  const [what, fields] =
    kind === "publish"
      ? ["publish", { channels, event, data, to_others: toOthers }]
      : ["trigger", { channel: channels[0], event, data }];
  set({ sending: true, sent: null });
  const entry = { time: Date.now(), kind, channels, event, data, toOthers, problem: null };
  try {
    await link.request(what, fields);
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    entry.problem = error.message;
  }
  set({ sending: false, sent: entry });
  remember(entry);
}

export async function runDoctor() {
  set({ doctor: { isRunning: true, findings: [], problem: null, time: Date.now() } });
  let problem = null;
  try {
    await link.request("doctor");
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    problem = error.message;
  }
  set({ doctor: { ...state.doctor, isRunning: false, problem } });
}

/** Saves the events that match the filter as JSON lines. */
export function exportRows() {
  const lines = log.shown.filter((row) => row.type === "event").map(asLine);
  const url = URL.createObjectURL(new Blob(lines, { type: "application/x-ndjson" }));
  const anchor = document.createElement("a");
  anchor.href = url;
  anchor.download = `events-${new Date().toISOString().slice(0, 19).replaceAll(":", "")}.jsonl`;
  anchor.click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
  notify(`Exported ${lines.length} events as JSON lines.`);
}

function asLine({ time, channel, event, user_id, data }) {
  const at = new Date(time).toISOString();
  return `{"time":${JSON.stringify(at)},"channel":${JSON.stringify(channel)},"event":${JSON.stringify(event)},"user_id":${JSON.stringify(user_id ?? null)},"data":${asJson(data)}}\n`;
}
