/**
 * The text as it is seen: a layer behind the textarea, line for line with the same metrics.
 *
 * A textarea cannot colour its text, but nothing else takes typing, input methods and screen readers as well. So it
 * lies on top with transparent letters, and this layer shows them, with colours, underlines and ghost text. Only
 * lines that have changed are made again.
 */

import { make } from "./dom.js";
import { levelOf } from "./surprise.js";

const COPIED = 16; // a bit above the levels

export class Mirror {
  /** @param {HTMLElement} layer */
  constructor(layer) {
    this.layer = layer;
    this.keys = [];
    this.text = "";
  }

  /**
   * @param {string} text
   * @param {{cells: Cell[], copied: [number, number][], ghost: {at: number, text: string}|null}} marks
   */
  show(text, { cells, copied, ghost }) {
    this.text = text;
    const paint = cells.length || copied.length ? painted(text.length, cells, copied) : null;
    const lines = runsOfLines(text, paint, ghost);
    this.#replace(lines, lines.map((runs) => JSON.stringify(runs)));
  }

  /** Where a stretch of text stands on the screen. */
  rectangle(start, end) {
    const range = document.createRange();
    range.setStart(...this.#locate(start));
    range.setEnd(...this.#locate(end));
    return range.getBoundingClientRect();
  }

  /** The lines between the first and the last that differ from what is shown. */
  #replace(lines, keys) {
    const shorter = Math.min(keys.length, this.keys.length);
    let first = 0;
    while (first < shorter && keys[first] === this.keys[first]) first++;
    let after = 0;
    while (after < shorter - first && keys.at(-1 - after) === this.keys.at(-1 - after)) after++;
    const old = [...this.layer.children].slice(first, this.keys.length - after);
    const next = this.layer.children[this.keys.length - after] ?? null;
    for (const line of old) line.remove();
    for (const runs of lines.slice(first, lines.length - after)) this.layer.insertBefore(lineOf(runs), next);
    this.keys = keys;
  }

  #locate(place) {
    let begin = 0;
    for (const line of this.layer.children) {
      const parts = [...line.childNodes].filter((node) => node.className !== "ghost");
      for (const part of parts) {
        if (place - begin <= part.textContent.length) return inside(part, place - begin);
        begin += part.textContent.length;
      }
      if (place === begin) return [line, 0];
      begin++; // the line end
    }
    return [this.layer, this.layer.childNodes.length];
  }
}

function inside(part, offset) {
  return part.firstChild ? [part.firstChild, offset] : [part, part.nodeType === Node.TEXT_NODE ? offset : 0];
}

/** For every unit of the text the level of its surprise, and whether it is copied. */
function painted(length, cells, copied) {
  const paint = new Uint8Array(length);
  for (const cell of cells) paint.fill(levelOf(cell), cell.start, cell.end);
  for (const [start, end] of copied) for (let i = start; i < Math.min(end, length); i++) paint[i] |= COPIED;
  return paint;
}

/** Each line as runs [text, paint]; the ghost is a run of paint -1. */
function runsOfLines(text, paint, ghost) {
  let begin = 0;
  return text.split("\n").map((line) => {
    const end = begin + line.length;
    const cut = ghost && ghost.at >= begin && ghost.at <= end ? ghost.at : end;
    const runs = runsBetween(text, paint, begin, cut);
    if (ghost && cut === ghost.at) runs.push([ghost.text, -1]);
    runs.push(...runsBetween(text, paint, cut, end));
    begin = end + 1;
    return runs;
  });
}

function runsBetween(text, paint, start, end) {
  const runs = [];
  for (let from = start, to = start; from < end; from = to) {
    const kind = paint?.[from] ?? 0;
    to = from + 1;
    if (!paint) to = end;
    while (to < end && paint[to] === kind) to++;
    runs.push([text.slice(from, to), kind]);
  }
  return runs;
}

function lineOf(runs) {
  return make("div", {}, ...runs.map(([text, kind]) => runOf(text, kind)));
}

function runOf(text, kind) {
  if (kind === 0) return text;
  if (kind === -1) return make("span", { class: "ghost" }, text);
  const classes = [`surprise-${kind & (COPIED - 1)}`, ...(kind & COPIED ? ["copied"] : [])];
  return make("span", { class: classes.join(" ") }, text);
}
