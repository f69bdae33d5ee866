// What the page knows. Whoever changes it calls changed(), and the page is drawn once in the next frame.

import { Log } from "./log.js";

const MOST_CHANGES = 200;
const MOST_SENT = 50;

export const log = new Log();

export const state = {
  /** "starting", "open", "lost" or "refused": the connection to the console, not the console's to the server. */
  link: "starting",
  /** The first frame of the console: server, application, what is allowed. */
  hello: null,
  connection: { state: "connecting", reconnects: 0, problem: null },
  /** What happened to the connection, oldest first: {time, state, problem}. The log has the gaps. */
  changes: [],
  channels: [],
  /** How many there are; the console does not list very many. */
  channelTotal: 0,
  followed: new Set(),
  /** Channels that a request is on its way for. */
  pending: new Set(),
  followAll: { on: false, prefix: "", exclude: "" },
  channelQuery: "",
  /** The name of the channel that is shown, and its members: {loading, users, error}. */
  channel: null,
  members: null,
  /** The row that is shown. */
  selected: null,
  payloadQuery: "",
  draft: { kind: "publish", channels: "", event: "", data: "{}", toOthers: false },
  sending: false,
  /** How the last sending ended: {ok, text}. */
  sent: null,
  history: [],
  doctor: { isRunning: false, findings: [], problem: null, time: null },
  /** Of the panel at the side: "event", "channel", "publish", "connection". */
  tab: "event",
  /** What a narrow screen shows: "events", "channels" or "panel". */
  page: "events",
  /** "help", or {join: name} for the question before a presence channel is joined. */
  dialog: null,
  notices: [],
};

let draw = () => {};
let isScheduled = false;

export function changed() {
  if (isScheduled) return;
  isScheduled = true;
  requestAnimationFrame(() => {
    isScheduled = false;
    draw();
  });
}

export function onChange(listener) {
  draw = listener;
}

export function set(values) {
  Object.assign(state, values);
  changed();
}

export function addChange(change) {
  state.changes = [...state.changes.slice(1 - MOST_CHANGES), change];
  changed();
}

/** Shows a message at the edge. Errors stay until they are closed. */
export function notify(text, level = "info") {
  const notice = { text, level };
  state.notices = [...state.notices.filter((each) => each.text !== text).slice(-3), notice];
  if (level !== "error") setTimeout(() => dismiss(notice), 5000);
  changed();
}

export function dismiss(notice) {
  set({ notices: state.notices.filter((each) => each !== notice) });
}

// What was sent is kept for this tab, so that it is there after a reload.
try {
  state.history = JSON.parse(sessionStorage.getItem("sent") ?? "[]");
} catch {
  sessionStorage.removeItem("sent");
}

export function remember(sent) {
  state.history = [sent, ...state.history].slice(0, MOST_SENT);
  try {
    sessionStorage.setItem("sent", JSON.stringify(state.history));
  } catch {
    // The storage is full: what was sent is there until the page is closed.
  }
  changed();
}
