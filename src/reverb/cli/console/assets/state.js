// The state of the page. Code that changes it calls changed(), and the page is drawn once in the next frame.

import { Log } from "./log.js";

const MOST_CHANGES = 200;
const MOST_SENT = 50;

export const log = new Log();

export const state = {
  /** The connection of the page to the console: "starting", "open", "lost" or "refused". */
  link: "starting",
  /** The first frame from the console: the server, the application, and what the page may do. */
  hello: null,
  connection: { state: "connecting", reconnects: 0, problem: null },
  /** The history of the connection to the server, the oldest first: {time, state, problem}. The log has the gaps. */
  changes: [],
  channels: [],
  /** The number of all channels. The list has at most 2,000. */
  channelTotal: 0,
  followed: new Set(),
  /** Channels with a request that is not answered yet. */
  pending: new Set(),
  followAll: { on: false, prefix: "", exclude: "" },
  channelQuery: "",
  /** The name of the selected channel, and its members: {isLoading, users, error}. */
  channel: null,
  members: null,
  /** The selected row. */
  selected: null,
  payloadQuery: "",
  draft: { kind: "publish", channels: "", event: "", data: "{}", toOthers: false },
  sending: false,
  /** The last event that was sent, with the problem if there was one. */
  sent: null,
  history: [],
  doctor: { isRunning: false, findings: [], problem: null, time: null },
  /** The tab of the panel: "event", "channel", "publish" or "connection". */
  tab: "event",
  /** The page of a narrow screen: "events", "channels" or "panel". */
  page: "events",
  /** The open dialog: "help", or {join: name} for joining a presence channel. */
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

/** Shows a notice. Errors stay until the user closes them. */
export function notify(text, level = "info") {
  const notice = { text, level };
  state.notices = [...state.notices.filter((each) => each.text !== text).slice(-3), notice];
  if (level !== "error") setTimeout(() => dismiss(notice), 5000);
  changed();
}

export function dismiss(notice) {
  set({ notices: state.notices.filter((each) => each !== notice) });
}

// The sent events survive a reload of this tab.
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
    // The storage is full. The sent events stay until the page is closed.
  }
  changed();
}
