/**
 * Tokens with their probabilities → cells: stretches of text that the model was surprised by as a whole.
 *
 * A cell is what one token wrote, or, where a character took several tokens of bytes, that character; its surprise
 * is the sum of theirs.
 */

import { countCharacters, units } from "./text.js";

/** @typedef {{text: string, logprob: number}} Alternative */
/** @typedef {{start: number, end: number, logprob: number|null, top: Alternative[]}} Cell in UTF-16 units */

export const LEVELS = [0.5, 1.5, 3, 5, 7.5, 10]; // bits from which on a deeper colour is used

/** The completions API's `logprobs` for a text → its cells. `base`: characters in front of the text. */
export function cellsOf(text, logprobs, base = 0) {
  const places = units(text, logprobs.text_offset.map((offset) => offset - base));
  /** @type {Cell[]} */
  const cells = [];
  places.forEach((start, i) => {
    const logprob = logprobs.token_logprobs[i];
    const last = cells.at(-1);
    if (last?.start === start) last.logprob = sum(last.logprob, logprob);
    else cells.push({ start, end: text.length, logprob, top: alternatives(logprobs.top_logprobs?.[i]) });
    if (last && last.start < start) last.end = start;
  });
  return cells.filter((cell) => cell.end > cell.start);
}

/** 0 for what was expected, up to LEVELS.length for what surprised most. */
export function levelOf(cell) {
  const bits = bitsOf(cell.logprob ?? 0);
  return LEVELS.filter((from) => bits >= from).length;
}

export function bitsOf(logprob) {
  return -logprob / Math.LN2;
}

/** Whether a token can be written by itself: bytes of a character and marks like the end of the text cannot. */
export function isWritable(token) {
  return !/^bytes:(\\x[0-9a-f]{2})+$/i.test(token) && !/^<\|.*\|>$|^\[[A-Z]+\]$|^<\/?s>$/.test(token);
}

/** Cells of a text in which something has been edited: those it touched go, those behind it move. */
export function moveCells(cells, edit) {
  const end = edit.at + edit.removed.length;
  const by = edit.inserted.length - edit.removed.length;
  const inside = (cell) => (edit.removed ? cell.start < end && cell.end > edit.at : cell.start < end && cell.end > end);
  return cells
    .filter((cell) => !inside(cell))
    .map((cell) => (cell.start >= end ? { ...cell, start: cell.start + by, end: cell.end + by } : cell));
}

/** Collects the log-probabilities of a stream's pieces. */
export class Collected {
  constructor(prompt) {
    this.base = countCharacters(prompt);
    this.logprobs = { tokens: [], token_logprobs: [], top_logprobs: [], text_offset: [] };
  }

  add(logprobs) {
    for (const key of Object.keys(this.logprobs)) this.logprobs[key].push(...(logprobs?.[key] ?? []));
  }

  cells(text) {
    return cellsOf(text, this.logprobs, this.base);
  }
}

function alternatives(top) {
  const found = Object.entries(top ?? {}).map(([text, logprob]) => ({ text, logprob }));
  return found.sort((a, b) => b.logprob - a.logprob);
}

function sum(a, b) {
  return a === null || b === null ? (a ?? b) : a + b;
}
