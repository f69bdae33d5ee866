// The dialogs: help, and the question before joining a presence channel.

import { html, useLayoutEffect, useRef } from "./vendor.js";
import { follow } from "./actions.js";
import { set, state } from "./state.js";
import { visible } from "./text.js";

const KEYS = [
  ["/", "Filter the events"],
  ["space", "Pause or resume the list"],
  ["↑ ↓", "Select an event; Home and End select the first and the last"],
  ["Enter", "Show the selected event"],
  ["p", "Publish an event"],
  ["c", "Find a channel"],
  ["d", "Show the connection and the doctor"],
  ["t", "Change the theme: light, dark, or that of the system"],
  ["Esc", "Remove the filter, or go back"],
  ["?", "This help"],
];

export function Dialogs() {
  const { dialog } = state;
  if (dialog === "help") return html`<${Modal} key="help"><${Help} /><//>`;
  if (dialog?.join) return html`<${Modal} key="join"><${Join} name=${dialog.join} /><//>`;
  return null;
}

const close = () => set({ dialog: null });

function Modal({ children }) {
  const element = useRef(null);
  useLayoutEffect(() => {
    if (!element.current.open) element.current.showModal(); // Esc closes it by itself
  });
  const onClick = (event) => event.target === element.current && close();
  return html`<dialog ref=${element} onClose=${close} onClick=${onClick}><div class="inside">${children}</div></dialog>`;
}

function Join({ name }) {
  const join = () => {
    close();
    follow(name, true);
  };
  return html`<h2>Join ${visible(name)}?</h2>
    <p>This is a presence channel. <b>Its members will see that you are there</b>, until you stop following it.</p>
    <p class="hint">To see its members without joining, close this dialog and click the channel.</p>
    <div class="actions">
      <button class="primary" onClick=${join}>Join</button>
      <button onClick=${close}>Don't join</button>
    </div>`;
}

function Help() {
  return html`<h2>Keys and help</h2>
    <dl class="keys">${KEYS.map(([key, what]) => html`<dt>${key.split(" ").map((each) => html`<kbd>${each}</kbd>`)}</dt><dd>${what}</dd>`)}</dl>
    <h3>The filter</h3>
    <p>The list shows an event if its channel, name or payload has each word. <code>channel:orders</code> and <code>event:Shipped</code>
      search the names only. <code>channel:=news</code> means the whole name. <code>-word</code> excludes. Write quotes around words with spaces.</p>
    <h3>Which events the page shows</h3>
    <p>The page shows events of the channels that you follow, after the server has confirmed the subscription. The page keeps the latest 10,000 rows. The console keeps as many for pages that you open later.</p>
    <div class="actions"><button class="primary" onClick=${close}>Close</button></div>`;
}
