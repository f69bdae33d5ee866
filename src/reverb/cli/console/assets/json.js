// A JSON parser that keeps what JSON.parse() loses: all digits of numbers, duplicate keys, and the position of a
// mistake.
//
// Nodes: {type: "object", entries: [[key, node]]}, {type: "array", entries: [[index, node]]}, {type: "string", value},
// and {type: "number" | "literal", text}.

const DEEPEST = 500;
const NUMBER = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/y;
const LITERAL = /true|false|null/y;
const STRING = /"(?:[^"\\\u0000-\u001f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*"/y;
const SPACE = /[ \t\n\r]*/y;

export class JSONError extends Error {
  constructor(message, text, at) {
    super(message);
    const before = text.slice(0, at).split("\n");
    this.line = before.length;
    this.column = before[before.length - 1].length + 1;
  }
}

export function parse(text) {
  let at = 0;

  function fail(message) {
    throw new JSONError(at >= text.length ? "the text ends too early" : message, text, at);
  }

  function take(pattern) {
    pattern.lastIndex = at;
    const match = pattern.exec(text);
    if (match === null) return null;
    at += match[0].length;
    return match[0];
  }

  function string(message) {
    if (text[at] !== '"') fail(message);
    const found = take(STRING);
    if (found === null) fail("this text in quotes has no end, or a character that must be escaped");
    return JSON.parse(found);
  }

  function many(end, entry) {
    const entries = [];
    at += 1;
    take(SPACE);
    while (text[at] !== end) {
      if (entries.length > 0) {
        if (text[at] !== ",") fail(`a comma or ${end} was expected`);
        at += 1;
        take(SPACE);
      }
      entries.push(entry(entries.length));
      take(SPACE);
    }
    at += 1;
    return entries;
  }

  function value(depth) {
    if (depth > DEEPEST) fail(`it is nested deeper than ${DEEPEST} levels`);
    take(SPACE);
    const first = text[at];
    if (first === "{") {
      const entries = many("}", () => {
        const key = string("a key in double quotes was expected");
        take(SPACE);
        if (text[at] !== ":") fail("a colon was expected");
        at += 1;
        return [key, value(depth + 1)];
      });
      return { type: "object", entries };
    }
    if (first === "[") return { type: "array", entries: many("]", (index) => [index, value(depth + 1)]) };
    if (first === '"') return { type: "string", value: string() };
    const number = take(NUMBER);
    if (number !== null) return { type: "number", text: number };
    const literal = take(LITERAL);
    if (literal !== null) return { type: "literal", text: literal };
    return fail("a value was expected");
  }

  const node = value(0);
  take(SPACE);
  if (at < text.length) fail("nothing more was expected here");
  return node;
}

/** The node of a JSON text, or null if the text is not JSON. */
export function parseOrNull(text) {
  try {
    return parse(text);
  } catch (error) {
    if (error instanceof JSONError) return null;
    throw error;
  }
}

const units = (text) => Array.from({ length: text.length }, (_, index) => text.charCodeAt(index));

/** JSON with invisible characters escaped. */
export function escapeInvisible(json) {
  return json.replace(/(?![ \n\u200c\u200d])[\p{C}\p{Z}]/gu, (character) =>
    units(character).map((unit) => `\\u${unit.toString(16).padStart(4, "0")}`).join(""),
  );
}

const quote = (text) => escapeInvisible(JSON.stringify(text));

export function format(node, indent = "") {
  if (node.type === "string") return quote(node.value);
  if (!node.entries) return node.text;
  const [open, close] = node.type === "object" ? "{}" : "[]";
  if (node.entries.length === 0) return open + close;
  const inner = `${indent}  `;
  const lines = node.entries.map(([key, child]) => {
    const name = node.type === "object" ? `${quote(key)}: ` : "";
    return `${inner}${name}${format(child, inner)}`;
  });
  return `${open}\n${lines.join(",\n")}\n${indent}${close}`;
}

/** A payload as JSON on one line. A payload that is not JSON becomes a JSON string. */
export function asJson(data) {
  return parseOrNull(data) === null ? JSON.stringify(data) : data.replace(/[\r\n]+\s*/g, " ");
}
