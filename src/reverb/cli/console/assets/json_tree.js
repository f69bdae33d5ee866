// A payload as a tree that folds, with a search.

import { html, useMemo, useState } from "./vendor.js";
import { parseOrNull } from "./json.js";
import { beginning, visible } from "./text.js";

const MOST_LINES = 500;
const MOST_TEXT = 2000;
const OPEN_DEPTH = 2;
const OPEN_ENTRIES = 50;

/** Properties: `text`, and `query`, the text to search for. */
export function JsonTree({ text, query }) {
  const node = useMemo(() => parseOrNull(text), [text]);
  if (node === null) return html`<${PlainText} text=${text} query=${query} />`;
  return html`<${Tree} node=${node} query=${query.toLowerCase()} key=${text} />`;
}

function PlainText({ text, query }) {
  const [isWhole, setWhole] = useState(false);
  const most = isWhole ? text.length : 20 * MOST_TEXT;
  return html`<p class="hint">This payload is not JSON.</p>
    <pre class="plain"><${Marked} text=${beginning(text, most)} query=${query.toLowerCase()} /></pre>
    ${text.length > most && html`<button onClick=${() => setWhole(true)}>Show all</button>`}`;
}

function Tree({ node, query }) {
  const [folds, setFolds] = useState(() => new Map());
  const [most, setMost] = useState(MOST_LINES);
  const found = useMemo(() => (query ? search(node, query) : null), [node, query]);
  const lines = [];
  collect(lines, node, { path: "$", depth: 0, key: null, folds, found, most });
  const fold = (line) => setFolds(new Map(folds).set(line.path, !line.isOpen));
  return html`<div class="tree" role="tree" aria-label="Payload">
      ${lines.slice(0, most).map((line) => html`<${Line} key=${line.path + line.part} line=${line} query=${query} onFold=${fold} />`)}
    </div>
    ${lines.length > most &&
    html`<button class="more" onClick=${() => setMost(most + 4 * MOST_LINES)}>Show more lines</button>`}
    <p class="sr" role="status">${found && `${found.matches} found`}</p>`;
}

/** The nodes that match, or have a node inside that matches. */
function search(node, query) {
  const inside = new Set();
  let matches = 0;
  const visit = (each, key) => {
    let isFound = key !== null && String(key).toLowerCase().includes(query);
    if (isFound) matches += 1;
    if (each.entries) {
      for (const [name, child] of each.entries) {
        if (visit(child, each.type === "object" ? name : null)) {
          inside.add(each);
          isFound = true;
        }
      }
    } else if ((each.value ?? each.text).toLowerCase().includes(query)) {
      matches += 1;
      isFound = true;
    }
    return isFound;
  };
  visit(node, null);
  return { inside, matches };
}

function collect(lines, node, { path, depth, key, folds, found, most, comma = "" }) {
  if (lines.length > most) return;
  if (!node.entries || node.entries.length === 0) {
    lines.push({ path, part: "", depth, key, node, comma });
    return;
  }
  const usual = depth < OPEN_DEPTH && node.entries.length <= OPEN_ENTRIES;
  const isOpen = folds.get(path) ?? (depth === 0 || usual || (found?.inside.has(node) ?? false));
  lines.push({ path, part: "", depth, key, node, isOpen, comma });
  if (!isOpen) return;
  const last = node.entries.length - 1;
  node.entries.forEach(([name, child], index) => {
    collect(lines, child, {
      path: `${path}/${index}`,
      depth: depth + 1,
      key: node.type === "object" ? name : null,
      folds,
      found,
      most,
      comma: index < last ? "," : "",
    });
  });
  lines.push({ path, part: "end", depth, key: null, node, comma });
}

function Line({ line, query, onFold }) {
  const { node, key, depth, isOpen, part, comma } = line;
  const [open, close] = node.type === "object" ? "{}" : "[]";
  const name = key !== null && html`<span class="key"><${Marked} text=${visible(JSON.stringify(key))} query=${query} /></span>: `;
  const indent = { paddingInlineStart: `${depth * 16 + 18}px` };
  if (part === "end") return html`<div class="line" style=${indent}>${close}${comma}</div>`;
  if (isOpen === undefined) {
    return html`<div class="line" role="treeitem" style=${indent}>${name}<${Value} node=${node} query=${query} />${comma}</div>`;
  }
  const count = node.entries.length;
  const what = node.type === "object" ? (count === 1 ? "key" : "keys") : count === 1 ? "item" : "items";
  return html`<div class="line" role="treeitem" aria-expanded=${String(isOpen)} style=${indent}>
    <button class="fold" aria-label=${`${isOpen ? "Fold" : "Unfold"} ${key ?? "payload"}`} onClick=${() => onFold(line)}>
      <span class=${isOpen ? "arrow open" : "arrow"}></span>
    </button>${name}${open}${!isOpen && html`<span class="count">${count} ${what}</span>${close}${comma}`}
  </div>`;
}

function Value({ node, query }) {
  if (node.entries) return node.type === "object" ? "{}" : "[]";
  if (node.type !== "string") return html`<span class=${node.type}><${Marked} text=${node.text} query=${query} /></span>`;
  // With the quotes of JSON. Invisible characters that JSON does not escape are escaped, too.
  const text = JSON.stringify(node.value);
  return html`<span class="string"><${Marked} text=${beginning(text, MOST_TEXT)} query=${query} /></span>`;
}

/** A text with the matches of the search marked. */
function Marked({ text, query }) {
  if (!query) return text;
  const lower = text.toLowerCase();
  const parts = [];
  let from = 0;
  for (let at = lower.indexOf(query); at >= 0; at = lower.indexOf(query, from)) {
    parts.push(text.slice(from, at), html`<mark>${text.slice(at, at + query.length)}</mark>`);
    from = at + query.length;
  }
  parts.push(text.slice(from));
  return parts;
}
