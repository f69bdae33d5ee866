// Formats text and numbers. Invisible characters in text of others become escapes.

// The characters that Python's str.isprintable() refuses, except the joiners, which are parts of words and emoji.
const INVISIBLE = /(?![ \u200c\u200d])[\p{C}\p{Z}]/gu;
const SHORT = { "\n": "\\n", "\r": "\\r", "\t": "\\t" };

function escape(character) {
  const code = character.codePointAt(0);
  const [letter, width] = code > 0xffff ? ["U", 8] : code > 0xff ? ["u", 4] : ["x", 2];
  return SHORT[character] ?? `\\${letter}${code.toString(16).padStart(width, "0")}`;
}

/** Escapes control characters, and characters that change the writing direction. */
export function visible(text) {
  return String(text).replace(INVISIBLE, escape);
}

/** The same for a text that is cut off at a length. */
export function beginning(text, most) {
  return text.length > most ? `${visible(text.slice(0, most))}…` : visible(text);
}

/** JSON on one line, easy to read: without PHP's escapes of slashes and of characters that are not ASCII. */
export function previewOf(data, most = 240) {
  const text = data.slice(0, most * 2).replace(/\\(u[0-9a-fA-F]{4}|.)/gs, (escaped, what) => {
    if (what === "/") return "/";
    if (what.length < 5) return escaped;
    const character = String.fromCharCode(parseInt(what.slice(1), 16));
    return character < " " || character === '"' || character === "\\" ? escaped : character;
  });
  return beginning(text.replace(/\s*\n\s*/g, " "), most);
}

/** `App\Events\OrderShipped` as `…\OrderShipped`. */
export function shortEvent(name) {
  const at = name.lastIndexOf("\\");
  return at > 0 && at < name.length - 1 ? `…${visible(name.slice(at))}` : visible(name);
}

const pad = (number, width = 2) => String(number).padStart(width, "0");

export function clock(milliseconds) {
  const time = new Date(milliseconds);
  return `${pad(time.getHours())}:${pad(time.getMinutes())}:${pad(time.getSeconds())}`;
}

export function clockExact(milliseconds) {
  return `${clock(milliseconds)}.${pad(new Date(milliseconds).getMilliseconds(), 3)}`;
}

export function sizeOf(bytes) {
  if (bytes < 1000) return `${bytes} B`;
  return bytes < 1e6 ? `${(bytes / 1e3).toFixed(1)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}

export function duration(seconds) {
  if (seconds == null) return "";
  if (seconds < 0.01) return `${(seconds * 1e3).toFixed(1)} ms`;
  if (seconds < 1) return `${Math.round(seconds * 1e3)} ms`;
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
}

export const count = (number) => number.toLocaleString("en");

export function plural(number, one, many = `${one}s`) {
  return `${count(number)} ${number === 1 ? one : many}`;
}
