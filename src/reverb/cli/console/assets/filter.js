// The filter: an event matches if it has all words. `channel:` and `event:` search the names only, a minus excludes,
// quotes keep spaces, and `channel:=name` means the whole name.

const WORD = /(-?)(channel:|event:)?(=?)(?:"([^"]*)"?|(\S+))/g;

const literal = (text) => text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");

/** A pattern for a character, escaped in JSON or not: PHP escapes slashes and all characters but ASCII. */
function inJson(character) {
  if (character === "/" || character === '"') return `\\\\?${character}`;
  if (character === "\\") return "\\\\{1,2}";
  if (character <= "~") return literal(character);
  const escaped = (text) => {
    const units = Array.from({ length: text.length }, (_, index) => text.charCodeAt(index));
    return units.map((unit) => `\\\\u${unit.toString(16).padStart(4, "0")}`).join("");
  };
  const cases = new Set([character.toLowerCase(), character.toUpperCase()]);
  return `(?:${literal(character)}|${[...cases].map(escaped).join("|")})`;
}

function test(field, isWhole, text) {
  const name = field?.slice(0, -1);
  if (field && isWhole) return (row) => row[name] === text;
  const pattern = new RegExp(literal(text), "iu");
  if (field) return (row) => pattern.test(row[name]);
  const written = new RegExp([...text].map(inJson).join(""), "iu");
  return (row) =>
    pattern.test(row.channel) || pattern.test(row.event) || written.test(row.data) || row.user_id === text;
}

/** A function that tells whether the filter shows a row. Rows that are not events, such as gaps, always show. */
export function compile(query) {
  const tests = [];
  for (const [, minus, field, whole, inQuotes, bare] of query.matchAll(WORD)) {
    const text = inQuotes ?? bare;
    if (!text) continue;
    const found = test(field, whole === "=", field ? text : whole + text);
    tests.push(minus ? (row) => !found(row) : found);
  }
  return (row) => row.type !== "event" || tests.every((each) => each(row));
}

/** The query with a name as the only condition on the field `channel` or `event`. */
export function only(query, field, name) {
  const rest = query.replaceAll(WORD, (word, minus, its) => (its === `${field}:` ? "" : word)).trim();
  const text = /["\s]/.test(name) ? `"${name.replaceAll('"', "")}"` : name;
  return `${rest} ${field}:=${text}`.trim();
}
