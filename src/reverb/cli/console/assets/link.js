// The connection to the console on this machine: a session, and one WebSocket that reconnects.

const FIRST_DELAY = 500;
const LONGEST_DELAY = 5000;

/** Removes the token from the address, and gets a cookie for it from the console. */
export async function openSession() {
  const token = location.hash.slice(1);
  if (!token) return;
  history.replaceState(null, "", location.pathname);
  await fetch("session", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ token }),
  });
}

/** The console refused a request, or did not answer. The message says why. */
export class Refused extends Error {}

export class Link {
  #socket = null;
  /** Frames that wait until the WebSocket is open; null while the connection is lost. */
  #unsent = [];
  #requests = new Map();
  #lastRequest = 0;
  #delay = FIRST_DELAY;
  #onFrame;
  #onLost;

  /** Calls `onLost` with true if the console refused the connection because it does not know the cookie. */
  constructor(onFrame, onLost) {
    this.#onFrame = onFrame;
    this.#onLost = onLost;
  }

  open() {
    const url = new URL("ws", location.href);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    const socket = new WebSocket(url);
    this.#unsent ??= [];
    let wasOpen = false;
    socket.onopen = () => {
      wasOpen = true;
      this.#socket = socket;
      this.#delay = FIRST_DELAY;
      for (const frame of this.#unsent.splice(0)) socket.send(frame);
    };
    socket.onmessage = ({ data }) => this.#receive(JSON.parse(data));
    socket.onclose = () => this.#close(wasOpen);
  }

  /** Sends a request to the console. Resolves with the result, or rejects with Refused. */
  request(what, fields = {}) {
    return new Promise((resolve, reject) => {
      if (this.#unsent === null) {
        reject(new Refused("The console on this machine does not answer."));
        return;
      }
      this.#lastRequest += 1;
      this.#requests.set(this.#lastRequest, { resolve, reject });
      const frame = JSON.stringify({ id: this.#lastRequest, do: what, ...fields });
      if (this.#socket === null) this.#unsent.push(frame);
      else this.#socket.send(frame);
    });
  }

  #receive(frame) {
    if (frame.re === undefined) {
      this.#onFrame(frame);
      return;
    }
    const request = this.#requests.get(frame.re);
    this.#requests.delete(frame.re);
    if (frame.ok) request?.resolve(frame.result);
    else request?.reject(new Refused(frame.error));
  }

  async #close(wasOpen) {
    this.#socket = null;
    this.#unsent = null;
    for (const { reject } of this.#requests.values()) reject(new Refused("The connection to the console was lost."));
    this.#requests.clear();
    const isRefused = !wasOpen && (await this.#isRefused());
    this.#onLost(isRefused);
    if (isRefused) return;
    setTimeout(() => this.open(), this.#delay);
    this.#delay = Math.min(2 * this.#delay, LONGEST_DELAY);
  }

  /** A WebSocket does not say why it could not open. A plain request does. */
  async #isRefused() {
    try {
      return (await fetch("ws")).status === 403;
    } catch {
      return false;
    }
  }
}
