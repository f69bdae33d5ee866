// A list of any length: rows of one height, and only those in view are in the document.

import { Component, html } from "./vendor.js";

const MARGIN = 6;
const NEAR_THE_END = 4;

/** Properties: `count`, `height` of a row, `row(index)`, `label`, `empty`; `removed`, how many rows have ever left at
the beginning; `sticks`, whether it follows the end; `active`, the index of the row that is chosen; `onKey`. */
export class VirtualList extends Component {
  state = { top: 0, viewport: 600, isAtEnd: true };
  #element = null;
  #observer = null;

  componentDidMount() {
    this.#observer = new ResizeObserver(([entry]) => this.setState({ viewport: entry.contentRect.height }));
    this.#observer.observe(this.#element);
    this.setState({ viewport: this.#element.clientHeight });
  }

  componentWillUnmount() {
    this.#observer.disconnect();
  }

  componentDidUpdate(before) {
    const { removed = 0, sticks, count, height } = this.props;
    if (sticks && this.state.isAtEnd) this.#element.scrollTop = count * height;
    else if (removed > (before.removed ?? 0)) this.#element.scrollTop -= (removed - (before.removed ?? 0)) * height;
  }

  focus() {
    this.#element.focus({ preventScroll: true });
  }

  toEnd() {
    this.setState({ isAtEnd: true });
  }

  /** Scrolls as little as it takes to show the row. */
  reveal(index) {
    const { height } = this.props;
    const top = index * height;
    const element = this.#element;
    if (top < element.scrollTop) element.scrollTop = top;
    else if (top + height > element.scrollTop + element.clientHeight) element.scrollTop = top + height - element.clientHeight;
  }

  #scrolled = () => {
    const { scrollTop, clientHeight, scrollHeight } = this.#element;
    const isAtEnd = scrollTop + clientHeight >= scrollHeight - NEAR_THE_END;
    if (isAtEnd !== this.state.isAtEnd) this.props.onEnd?.(isAtEnd);
    this.setState({ top: scrollTop, isAtEnd });
  };

  render({ count, height, row, label, active = -1, onKey, sticks, empty, id }, { top, viewport, isAtEnd }) {
    const start = sticks && isAtEnd ? Math.max(0, count * height - viewport) : top;
    const first = Math.max(0, Math.min(Math.floor(start / height), count) - MARGIN);
    const last = Math.min(count, Math.ceil((start + viewport) / height) + MARGIN);
    const rows = [];
    for (let index = first; index < last; index++) rows.push(row(index));
    return html`<div class="scroll" id=${id} ref=${(element) => (this.#element = element ?? this.#element)}
      onScroll=${this.#scrolled} onKeyDown=${onKey} tabindex="0" role="listbox" aria-label=${label}
      aria-activedescendant=${active >= first && active < last ? `${id}-${active}` : null}>
      ${count === 0 && empty}
      <div class="space" style=${{ height: `${count * height}px` }}>
        <div class="slice" style=${{ transform: `translateY(${first * height}px)` }}>${rows}</div>
      </div>
    </div>`;
  }
}
