/**
 * The textarea and its mirror: what is typed becomes edits, and edits made elsewhere become text.
 *
 * Events: "edit" with the edit that was typed, "caret" when it has moved. While an input method composes, nothing is
 * told and the textarea is not touched; the mirror shows what it shows.
 */

import { Mirror } from "./mirror.js";
import { clean, editBetween } from "./text.js";

const MARGIN_PX = 40; // between what is written and the tools below

export class Editor extends EventTarget {
  /** @param {HTMLTextAreaElement} area @param {HTMLElement} layer @param {HTMLElement} tools over the lower edge */
  constructor(area, layer, tools) {
    super();
    this.area = area;
    this.tools = tools;
    this.mirror = new Mirror(layer);
    this.text = "";
    this.marks = { cells: [], copied: [], ghost: null };
    this.composing = false;
    area.addEventListener("input", () => this.#typed());
    area.addEventListener("compositionstart", () => (this.composing = true));
    area.addEventListener("compositionend", () => this.#composed());
    document.addEventListener("selectionchange", () => this.#moved());
  }

  get caret() {
    return this.area.selectionStart;
  }

  get selects() {
    return this.area.selectionStart !== this.area.selectionEnd;
  }

  /** Show another text, with the caret at a place. */
  set(text, caret) {
    this.text = text;
    this.area.value = text;
    this.area.setSelectionRange(caret, caret);
  }

  /** Show the text again, with other marks. */
  mark(marks) {
    this.marks = { ...this.marks, ...marks };
    this.show();
  }

  show() {
    // while something is composed the text is not the one that the marks are of
    const marks = this.composing ? { cells: [], copied: [], ghost: null } : this.marks;
    this.mirror.show(this.area.value, marks);
  }

  /** The place of the character at a point of the screen, or null. */
  placeAt(x, y) {
    const near = [this.caret - 2, this.caret - 1, this.caret, this.caret + 1];
    const inText = near.filter((place) => place >= 0 && place < this.text.length);
    return inText.find((place) => contains(this.mirror.rectangle(place, place + 1), x, y)) ?? null;
  }

  /** What the tools leave of the screen ends there. */
  get floor() {
    return this.tools.getBoundingClientRect().top;
  }

  /** Scroll until the caret's end of the ghost is on the screen. */
  reveal() {
    const ghost = this.marks.ghost && this.mirror.layer.querySelector(".ghost");
    const rectangle = ghost ? ghost.getBoundingClientRect() : this.mirror.rectangle(this.caret, this.caret);
    const over = rectangle.bottom - (this.floor - MARGIN_PX);
    if (rectangle.height && over > 0) scrollBy({ top: over });
  }

  #typed() {
    if (this.composing) this.show();
    else this.#commit();
  }

  #composed() {
    this.composing = false;
    this.#commit();
  }

  #commit() {
    const wellFormed = clean(this.area.value); // a pasted half of a character could be neither sent nor kept
    if (wellFormed !== this.area.value) this.#correct(wellFormed);
    const edit = editBetween(this.text, this.area.value);
    this.text = this.area.value;
    if (edit.removed || edit.inserted) this.dispatchEvent(new CustomEvent("edit", { detail: edit }));
    else this.show();
  }

  #correct(text) {
    const caret = this.caret;
    this.area.value = text;
    this.area.setSelectionRange(caret, caret);
  }

  #moved() {
    if (document.activeElement === this.area && !this.composing) this.dispatchEvent(new Event("caret"));
  }
}

function contains(rectangle, x, y) {
  return x >= rectangle.left && x < rectangle.right && y >= rectangle.top - 8 && y <= rectangle.bottom + 8;
}
