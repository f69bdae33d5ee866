// Keys that work everywhere except in text fields.

import { setFilter, togglePause } from "./actions.js";
import { log, set, state } from "./state.js";
import { nextTheme } from "./themes.js";

const TYPING = "input:not([type=checkbox]), textarea, select";

function focus(id) {
  requestAnimationFrame(() => requestAnimationFrame(() => document.getElementById(id)?.focus()));
}

const ACTIONS = {
  "/"() {
    set({ page: "events" });
    focus("filter");
  },
  " ": togglePause,
  p() {
    set({ tab: "publish", page: "panel" });
    focus("send-channels");
  },
  c() {
    set({ page: "channels" });
    focus("channel-query");
  },
  d() {
    set({ tab: "connection", page: "panel" });
  },
  t: nextTheme,
  "?"() {
    set({ dialog: "help" });
  },
};

/** Calls `move` for keys that select an event. */
export function listenToKeys(move) {
  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
    if (state.dialog !== null) {
      if (event.key === "Escape") set({ dialog: null });
      return;
    }
    const target = event.target instanceof Element ? event.target : document.body;
    if (event.key === "Escape") {
      escape(target);
      return;
    }
    if (target.matches(TYPING)) {
      if (target.id === "filter" && (event.key === "ArrowUp" || event.key === "ArrowDown") && move(event.key)) event.preventDefault();
      return;
    }
    if (event.key === " " && target.closest("button, summary, [type=checkbox]")) return;
    const isOnPage = target === document.body || target.closest("button");
    if (isOnPage && event.key.startsWith("Arrow") && move(event.key)) {
      event.preventDefault();
      return;
    }
    const action = ACTIONS[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  });
}

function escape(target) {
  if (target.id === "filter" || (target.id === "event-list" && log.query)) setFilter("");
  if (target.matches(TYPING)) target.blur();
  else if (state.page !== "events") set({ page: "events" });
}
