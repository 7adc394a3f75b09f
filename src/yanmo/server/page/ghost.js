/**
 * What the model offers: one continuation or several, at a place of the manuscript, while they are written.
 *
 * An offer knows the text in front of it, so that what was taken and what was not can be told apart later (choices).
 */

import { Collected } from "./surprise.js";
import { cleanUnits } from "./text.js";

export class Candidate {
  constructor(prompt) {
    this.text = "";
    this.meanLogprob = null;
    this.done = false;
    this.collected = new Collected(prompt);
  }

  add(choice) {
    this.text += cleanUnits(choice.text);
    this.collected.add(choice.logprobs);
    this.meanLogprob = choice.yanmo?.mean_logprob ?? this.meanLogprob;
    this.done ||= choice.finish_reason !== null;
  }

  /** @returns {import("./surprise.js").Cell[]} its cells, from the start of its text */
  get cells() {
    return this.collected.cells(this.text);
  }
}

export class Offer {
  /** @param {string} prompt the text in front of it @param {number} count */
  constructor(prompt, count) {
    this.prompt = prompt;
    this.candidates = Array.from({ length: count }, () => new Candidate(prompt));
    this.shown = count === 1 ? this.candidates[0] : null; // the one that stands in the text
    this.taken = 0; // units of it that are in the manuscript already
    this.stopper = new AbortController();
    this.running = true;
  }

  get at() {
    return this.prompt.length + this.taken;
  }

  /** What of the shown candidate is still ghost. */
  get rest() {
    return this.shown?.text.slice(this.taken) ?? "";
  }

  /** @returns {{at: number, text: string}|null} */
  get ghost() {
    return this.rest ? { at: this.at, text: this.rest } : null;
  }

  /** The candidate with the greatest mean, when all are written; the first of equal ones. */
  get likeliest() {
    if (this.running) return null;
    const known = this.candidates.filter(({ meanLogprob }) => meanLogprob !== null);
    return known.sort((a, b) => b.meanLogprob - a.meanLogprob)[0] ?? null;
  }

  /** Read the stream to its end; `tell` is called after every piece. */
  async read(pieces, tell) {
    try {
      for await (const piece of pieces) {
        for (const choice of piece.choices) this.candidates[choice.index]?.add(choice);
        tell();
      }
    } finally {
      this.running = false;
      tell();
    }
  }

  /** Whether an edit only types what stands there as ghost. */
  foresees(edit) {
    if (this.candidates.length > 1) return false;
    return !edit.removed && edit.at === this.at && edit.inserted !== "" && this.rest.startsWith(edit.inserted);
  }

  /** The cells of the next `length` units of the ghost, where they will stand. */
  cellsAhead(length) {
    const base = this.prompt.length;
    const moved = this.shown.cells.map((cell) => ({ ...cell, start: cell.start + base, end: cell.end + base }));
    return moved.filter((cell) => cell.start >= this.at && cell.end <= this.at + length);
  }

  stop() {
    this.stopper.abort();
  }
}
