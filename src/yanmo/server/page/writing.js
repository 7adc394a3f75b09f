/**
 * Writing: what is typed, what the model offers, what is taken of it, and how surprised it was by all of it.
 *
 * Every change of the text goes through `#apply`, so each of them is in the history and moves the marks.
 * Event "change": something that is shown beside the text may have changed.
 */

import { Choices } from "./choices.js";
import { later } from "./dom.js";
import { Offer } from "./ghost.js";
import { cellsOf, moveCells } from "./surprise.js";
import { cleanUnits, editBetween, sentenceEnd, units, wholeBefore } from "./text.js";

const IDLE_MS = 1200; // from the last edit until colours are asked for again
const ALTERNATIVES = 10;
const PART = 4000; // characters that are coloured at once, the last ones first: one writes at the end

export class Writing extends EventTarget {
  /**
   * @param {import("./editor.js").Editor} editor
   * @param {import("./connection.js").Connection} connection
   * @param {{writing: () => object, model: () => object|null, copied: () => number}} asked
   *   the fields that say how to write; the model; how much counts as copied
   */
  constructor(editor, connection, asked) {
    super();
    Object.assign(this, { editor, connection, asked });
    this.choices = new Choices();
    this.offer = null;
    this.cells = [];
    this.copied = [];
    this.stale = null; // the stretch {from, to} whose colours are not those of the text any more
    this.colours = false;
    this.underlines = false;
    this.refresh = later(IDLE_MS, () => this.#refresh());
    editor.addEventListener("edit", (event) => this.#typed(event.detail));
    editor.addEventListener("caret", () => this.#moved());
  }

  get text() {
    return this.manuscript.history.text;
  }

  open(manuscript) {
    this.close();
    this.manuscript = manuscript;
    this.cells = [];
    this.copied = [];
    this.editor.set(this.text, this.text.length);
    this.forgetColours();
    this.#show();
  }

  // -- what the model offers ---------------------------------------------------------------------

  /** Ask for continuations at the caret; what was offered before is rejected. */
  async continue(count) {
    const at = this.offer?.shown ? this.offer.at : this.editor.caret;
    this.close();
    this.connection.notices.hide("ended");
    const prompt = this.text.slice(0, at);
    this.editor.set(this.text, at);
    this.offer = new Offer(prompt, count);
    this.#show();
    const { signal } = this.offer.stopper;
    const { pinned } = this.manuscript;
    const front = pinned ? { pinned } : {};
    const how = { model: this.asked.model()?.id, ...front, ...this.asked.writing() };
    const body = { prompt, n: count, logprobs: ALTERNATIVES, ...how };
    const offer = this.offer;
    await this.connection.attempt("write", (server) => offer.read(server.stream(body, signal), () => this.#written(offer)));
  }

  acceptAll() {
    this.offer.stop();
    this.#accept(this.offer.rest.length);
    this.close();
  }

  acceptSentence() {
    this.#accept(sentenceEnd(this.offer.rest));
    if (!this.offer.running && !this.offer.rest) this.close();
  }

  /** Let a candidate stand in the text as ghost. */
  preview(candidate) {
    this.offer.shown = candidate;
    this.#show();
  }

  choose(candidate) {
    this.preview(candidate);
    this.acceptAll();
  }

  /** End what is offered: what of it is not taken is rejected. */
  close() {
    const offer = this.offer;
    if (!offer) return;
    offer.stop();
    this.offer = null;
    const pairs = this.choices.close(offer);
    if (this.asked.model()?.yanmo.keep_choices) for (const pair of pairs) this.#keep(pair);
    this.#show();
  }

  // -- changes ------------------------------------------------------------------------------------

  undo() {
    this.#travel((history) => history.undo());
  }

  redo() {
    this.#travel((history) => history.redo());
  }

  /** Return to a step of the history. */
  goTo(id) {
    this.#travel((history) => {
      history.goTo(id);
      return history.text.length;
    });
  }

  /** Write something else in the place of a cell, drop what followed, and go on from there. */
  goOnFrom(cell, alternative) {
    this.close();
    const { start } = cell;
    const inserted = cleanUnits(alternative.text);
    this.#apply({ at: start, removed: this.text.slice(start), inserted }, "choose");
    const end = start + inserted.length;
    this.cells.push({ start, end, logprob: alternative.logprob, top: cell.top });
    this.editor.set(this.text, end);
    this.#show();
    return this.continue(1);
  }

  // -- colours ------------------------------------------------------------------------------------

  setColours(on) {
    this.colours = on;
    this.#show();
    if (on) return this.refresh.now();
  }

  setUnderlines(on) {
    this.underlines = on;
    this.#show();
    if (on) return this.refresh.now();
  }

  /** Everything must be asked for again: it is of another text or model. */
  forgetColours() {
    this.asking?.abort();
    this.stale = { from: 0, to: this.text.length };
    this.refresh();
  }

  cellAt(place) {
    return this.cells.find((cell) => cell.start <= place && place < cell.end) ?? null;
  }

  // -- within -------------------------------------------------------------------------------------

  #typed(edit) {
    const taken = this.offer?.foresees(edit);
    if (taken) this.#take(edit.inserted.length, () => this.#apply(edit, "type"));
    else {
      this.close();
      this.#apply(edit, "type");
    }
    this.#show();
  }

  #accept(length) {
    if (!length) return;
    const edit = { at: this.offer.at, removed: "", inserted: this.offer.rest.slice(0, length) };
    this.#take(length, () => this.#apply(edit, "accept"));
    this.editor.set(this.text, edit.at + length);
    this.#show();
  }

  /** What of a ghost becomes text brings its colours with it. */
  #take(length, apply) {
    const cells = this.offer.cellsAhead(length);
    apply();
    this.offer.taken += length;
    this.cells = [...this.cells, ...cells].sort((a, b) => a.start - b.start);
  }

  #apply(edit, kind) {
    this.manuscript.history.record(edit, kind);
    this.#followed(edit);
  }

  #travel(move) {
    this.close();
    const earlier = this.text;
    const caret = move(this.manuscript.history);
    this.#followed(editBetween(earlier, this.text));
    this.editor.set(this.text, caret);
    this.#show();
  }

  /** The marks follow an edit; the window behind it must be coloured anew. */
  #followed(edit) {
    this.cells = moveCells(this.cells, edit);
    this.copied = [];
    const to = edit.at + edit.inserted.length + (this.asked.model()?.yanmo.window ?? 0);
    const by = edit.inserted.length - edit.removed.length;
    const earlier = this.stale ?? { from: edit.at, to: 0 };
    this.stale = { from: Math.min(earlier.from, edit.at), to: Math.max(earlier.to + by, to) };
    this.manuscript.changed();
    this.refresh();
  }

  #moved() {
    const away = this.offer?.shown && this.offer.candidates.length === 1 && this.editor.caret !== this.offer.at;
    if (away) this.close();
    this.dispatchEvent(new Event("caret"));
  }

  #written(offer) {
    if (this.offer !== offer) return;
    this.#show();
    if (offer.running || offer.candidates.some((candidate) => candidate.text)) return;
    if (offer.candidates.every((candidate) => candidate.done)) this.connection.notices.show("ended");
    this.close();
  }

  #show() {
    this.editor.mark({
      cells: this.colours ? this.cells : [],
      copied: this.underlines ? this.copied : [],
      ghost: this.offer?.ghost ?? null,
    });
    if (this.offer?.ghost) this.editor.reveal();
    this.dispatchEvent(new Event("change"));
  }

  #keep(pair) {
    this.connection.attempt("choices", (server) => server.post("yanmo/choices", pair));
  }

  /** Ask for what is switched on and not known of the text as it is. */
  async #refresh() {
    if (!this.text || !this.asked.model()) return;
    if (this.editor.composing || this.offer?.running) {
      this.refresh();
      return;
    }
    this.asking?.abort();
    this.asking = new AbortController();
    const { signal } = this.asking;
    if (this.underlines) await this.#underline(this.text, signal);
    while (this.colours && this.stale && (await this.#colour(this.text, this.stale, signal)));
  }

  /** Colour the last part of what is stale, with a window of text in front of it. @returns {Promise<boolean>} done */
  async #colour(text, stale, signal) {
    const end = wholeBefore(text, Math.min(text.length, stale.to));
    const from = wholeBefore(text, Math.max(stale.from, end - PART));
    const begin = lineStart(text, from - this.asked.model().yanmo.window);
    const prompt = text.slice(begin, end);
    const body = { model: this.asked.model().id, prompt, echo: true, max_tokens: 0, logprobs: ALTERNATIVES };
    const answer = await this.connection.attempt("colours", (server) => server.post("v1/completions", body, signal));
    if (!answer || this.text !== text) return false;
    const found = cellsOf(prompt, answer.choices[0].logprobs);
    const moved = found.map((cell) => ({ ...cell, start: cell.start + begin, end: cell.end + begin }));
    const fresh = begin === 0 ? moved : moved.filter((cell) => cell.end > from);
    const first = fresh[0]?.start ?? from;
    const last = fresh.at(-1)?.end ?? end;
    this.cells = [
      ...this.cells.filter((cell) => cell.end <= first),
      ...fresh,
      ...this.cells.filter((cell) => cell.start >= last),
    ];
    this.stale = from > stale.from ? { from: stale.from, to: from } : null;
    this.#show();
    return true;
  }

  async #underline(text, signal) {
    const body = { model: this.asked.model().id, text, characters: this.asked.copied() };
    const answer = await this.connection.attempt("copied", (server) => server.post("yanmo/copied", body, signal));
    if (!answer || this.text !== text) return;
    const places = units(text, answer.spans.flat());
    this.copied = answer.spans.map((_, i) => [places[2 * i], places[2 * i + 1]]);
    this.#show();
  }
}

/** The beginning of the line in which a place lies. */
function lineStart(text, place) {
  return place <= 0 ? 0 : text.lastIndexOf("\n", place - 1) + 1;
}

