/** What else the model thought of at a place: a list beside the character, from which one goes on. */

import { make } from "./dom.js";
import { say } from "./strings.js";
import { bitsOf, isWritable } from "./surprise.js";

const GAP_PX = 6; // to the character
const LEAST_SHARE = 0.001; // what is less likely is no thought of the model's

export class Alternatives {
  /** @param {HTMLElement} place @param {import("./writing.js").Writing} writing */
  constructor(place, writing) {
    this.place = place;
    this.writing = writing;
    this.text = ""; // in which the places of the shown cell are right
    place.addEventListener("keydown", (event) => this.#key(event));
  }

  get open() {
    return !this.place.hidden;
  }

  /** Show those of a cell, and go to the first of them. */
  show(cell) {
    const { text, mirror } = this.writing.editor;
    this.text = text;
    const head = make("p", { class: "head" }, make("b", {}, spoken(text.slice(cell.start, cell.end))), surpriseOf(cell));
    const likely = cell.top.filter(({ logprob }) => Math.exp(logprob) >= LEAST_SHARE);
    this.place.replaceChildren(head, ...likely.map((alternative) => this.#row(cell, alternative)));
    this.place.hidden = false;
    this.#moveBeside(mirror.rectangle(cell.start, cell.end));
    this.#rows()[0]?.focus({ preventScroll: true });
  }

  /** The text may have changed: undo works from here, too. */
  follow() {
    if (this.writing.text !== this.text) this.close();
  }

  close() {
    if (!this.open) return;
    const hadFocus = this.place.contains(document.activeElement);
    this.place.hidden = true;
    if (hadFocus) this.writing.editor.area.focus();
  }

  #row(cell, alternative) {
    const choose = () => {
      this.close();
      this.writing.goOnFrom(cell, alternative);
    };
    const bar = make("span", { class: "bar" });
    bar.style.setProperty("--share", String(Math.exp(alternative.logprob)));
    const parts = [make("span", { class: "token" }, spoken(alternative.text)), bar, make("span", {}, percent(alternative))];
    const disabled = !isWritable(alternative.text);
    return make("button", { type: "button", title: say("goOn"), disabled, onclick: choose }, ...parts);
  }

  #moveBeside(rectangle) {
    const width = this.place.offsetWidth;
    const left = Math.max(8, Math.min(rectangle.left, document.documentElement.clientWidth - width - 8));
    const above = rectangle.top - 2 * GAP_PX;
    const below = this.writing.editor.floor - rectangle.bottom - 2 * GAP_PX;
    this.place.style.setProperty("max-height", `${Math.max(above, below)}px`);
    const isBelow = below >= this.place.offsetHeight || below >= above;
    const top = isBelow ? rectangle.bottom + GAP_PX : rectangle.top - GAP_PX - this.place.offsetHeight;
    this.place.style.setProperty("left", `${left + scrollX}px`);
    this.place.style.setProperty("top", `${top + scrollY}px`);
  }

  #rows() {
    return [...this.place.querySelectorAll("button:not(:disabled)")];
  }

  #key(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const rows = this.#rows();
    rows[(rows.indexOf(document.activeElement) + step + rows.length) % rows.length].focus();
  }
}

function surpriseOf(cell) {
  if (cell.logprob === null) return say("notKnown");
  return say("surprise", percent(cell), bitsOf(cell.logprob).toFixed(1));
}

function percent({ logprob }) {
  const share = 100 * Math.exp(logprob);
  return share >= 100 * LEAST_SHARE ? `${share.toFixed(1)}%` : "<0.1%";
}

/** A token as it can be read: what would be invisible has a name. */
function spoken(token) {
  const bytes = token.match(/^bytes:((\\x[0-9a-f]{2})+)$/i);
  if (bytes) return say("bytes", bytes[1].replaceAll("\\x", " ").trim().toUpperCase());
  if (!isWritable(token)) return say("endOfText");
  if (/^ +$/.test(token)) return say("space");
  return token.replaceAll("\n", "↵") || "∅";
}
