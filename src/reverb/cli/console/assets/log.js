// The rows of the list: events, gaps, and marks for dropped rows. Bounded in number and in size.

import { compile } from "./filter.js";

const MOST_ROWS = 10_000;
const MOST_GAPS = 100;
const MOST_CHARACTERS = 24_000_000;

/** Rows with a bound, the oldest first. */
class Rows {
  items = [];
  characters = 0;

  push(row) {
    this.items.push(row);
    this.characters += row.data?.length ?? 0;
  }

  /** Drops the oldest rows over the bound. Returns how many. */
  trim() {
    let surplus = Math.max(0, this.items.length - MOST_ROWS);
    for (let i = 0; i < surplus; i++) this.characters -= this.items[i].data?.length ?? 0;
    while (this.characters > MOST_CHARACTERS && surplus < this.items.length - 1) {
      this.characters -= this.items[surplus].data?.length ?? 0;
      surplus += 1;
    }
    if (surplus > 0) this.items.splice(0, surplus);
    return surplus;
  }
}

export class Log {
  /** The rows that match the filter. */
  shown = [];
  /** How many rows were removed from the beginning of `shown`. */
  removed = 0;
  query = "";
  isPaused = false;
  /** The number of the last row that was received. */
  last = 0;
  /** The latest gaps, one for all channels of an outage, and the number of all gaps. */
  gaps = [];
  gapCount = 0;
  /** While paused: how many new rows were dropped. */
  heldDropped = 0;
  #rows = new Rows();
  #held = new Rows();
  #passes = compile("");

  get size() {
    return this.#rows.items.length;
  }

  get heldCount() {
    return this.#held.items.length;
  }

  /** Adds rows in the order of their numbers. Skips known rows, which a new connection may repeat. */
  add(rows) {
    for (const row of rows) {
      if (row.type !== "dropped") {
        if (row.n <= this.last) continue;
        this.last = row.n;
      } else {
        row.n = this.last + 0.5;
      }
      this.#append(row);
    }
    this.#trim();
  }

  setQuery(query) {
    this.query = query;
    this.#passes = compile(query);
    this.shown = this.#rows.items.filter(this.#passes);
    this.removed = 0;
  }

  pause() {
    this.isPaused = true;
  }

  resume() {
    this.isPaused = false;
    const { items } = this.#held;
    const dropped = this.heldDropped;
    this.#held = new Rows();
    this.heldDropped = 0;
    if (dropped > 0) this.#append({ type: "dropped", n: items[0].n - 0.5, count: dropped, time: items[0].time });
    for (const row of items) this.#append(row);
    this.#trim();
  }

  clear() {
    this.#rows = new Rows();
    this.#held = new Rows();
    this.heldDropped = 0;
    this.shown = [];
    this.removed = 0;
  }

  /** The index in `shown` of the row with the number, or of the next row. */
  indexOf(n) {
    let low = 0;
    let high = this.shown.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.shown[middle].n < n) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  #append(row) {
    const target = this.isPaused ? this.#held : this.#rows;
    const before = target.items[target.items.length - 1];
    // An outage is a gap on each followed channel. One row shows all of them.
    if (row.type === "gap" && before?.type === "gap" && row.time - before.time < 1000) {
      before.channels = [...new Set([...before.channels, ...(row.channels ?? [row.channel])])];
      before.downtime = Math.max(before.downtime, row.downtime);
      return;
    }
    if (row.type === "gap" && !row.channels) {
      row.channels = [row.channel];
      this.gaps = [...this.gaps.slice(1 - MOST_GAPS), row];
      this.gapCount += 1;
    }
    target.push(row);
    if (!this.isPaused && this.#passes(row)) this.shown.push(row);
  }

  #trim() {
    if (this.isPaused) {
      this.heldDropped += this.#held.trim();
      return;
    }
    if (this.#rows.trim() === 0) return;
    const left = this.#rows.items.length > 0 ? this.indexOf(this.#rows.items[0].n) : this.shown.length;
    this.shown.splice(0, left);
    this.removed += left;
  }
}
