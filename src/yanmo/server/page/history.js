/**
 * Everything that was ever done to a manuscript: a tree of edits, and the place in it where one stands.
 *
 * Undo goes to the parent, redo to the child that was visited last, and an edit made after an undo begins a new
 * branch; nothing is ever removed. Steps of one stretch of typing share a group and are undone together. A step
 * that has been saved never changes again, so two tabs on one manuscript add to the same tree and spoil nothing.
 */

import { applyEdit, inverse } from "./text.js";

/** @typedef {import("./text.js").Edit} Edit */
/** @typedef {Edit & {id: string, parent: string, group: string, kind: string, time: number}} Step */

export const ROOT = "root";
const CUT = 10; // units; who removes more may want them back
const PAUSE_MS = 2000; // typing after a longer one is undone by itself

export class History {
  /** @param {Step[]} steps @param {string} current the step after which the text reads `text` */
  constructor(steps = [], current = ROOT, text = "") {
    /** @type {Map<string, Step>} */
    this.steps = new Map(steps.map((step) => [step.id, step]));
    /** @type {Map<string, string[]>} */
    this.children = new Map();
    for (const step of steps) this.#adopt(step);
    this.current = current;
    this.text = text;
    this.visited = new Map(); // a step -> the child one came from
    this.unsaved = new Map();
  }

  /** Do an edit. */
  record(edit, kind, now = Date.now()) {
    const last = this.steps.get(this.current);
    const together = kind === "type" && last !== undefined && this.#continues(last, edit, now);
    this.text = applyEdit(this.text, edit);
    if (together && this.unsaved.has(last.id) && joined(last, edit)) {
      last.time = now;
      return last;
    }
    const id = newId();
    const step = { ...edit, id, parent: this.current, group: together ? last.group : id, kind, time: now };
    this.steps.set(id, step);
    this.unsaved.set(id, step);
    this.#adopt(step);
    this.visited.set(this.current, id);
    this.current = id;
    return step;
  }

  canUndo() {
    return this.current !== ROOT;
  }

  canRedo() {
    return this.#next() !== undefined;
  }

  /** @returns {number} where the caret belongs */
  undo() {
    const group = this.steps.get(this.current)?.group;
    let caret = this.text.length;
    for (let step = this.steps.get(this.current); step?.group === group && step; step = this.steps.get(this.current)) {
      this.#walk(step.parent, inverse(step));
      caret = step.at + step.removed.length;
    }
    return caret;
  }

  redo() {
    const group = this.#next()?.group;
    let caret = this.text.length;
    for (let step = this.#next(); step && step.group === group; step = this.#next()) {
      this.#walk(step.id, step);
      caret = step.at + step.inserted.length;
    }
    return caret;
  }

  /** Stand somewhere else in the tree. */
  goTo(id) {
    this.text = this.textAt(id);
    for (let at = id; at !== ROOT; at = this.steps.get(at).parent) this.visited.set(this.steps.get(at).parent, at);
    this.current = id;
  }

  /** The text after a step. */
  textAt(id) {
    const { up, down } = this.#route(id);
    const back = up.reduce((text, step) => applyEdit(text, inverse(step)), this.text);
    return down.reduce(applyEdit, back);
  }

  /** Where each branch ends, and where one was before much was cut, the newest first. */
  places() {
    const isPlace = ({ id }) => id === this.current || this.#childrenOf(id).every(cuts);
    return [...this.steps.values()].filter(isPlace).sort((a, b) => b.time - a.time);
  }

  /** The steps to write down since this was last asked; from now on they do not change. */
  takeUnsaved() {
    const steps = [...this.unsaved.values()];
    this.unsaved.clear();
    return steps;
  }

  /** What could not be written down is still to be. */
  giveBack(steps) {
    this.unsaved = new Map([...steps.map((step) => [step.id, step]), ...this.unsaved]);
  }

  #walk(id, edit) {
    if (this.steps.get(this.current)?.parent === id) this.visited.set(id, this.current);
    this.text = applyEdit(this.text, edit);
    this.current = id;
  }

  #next() {
    const children = this.children.get(this.current) ?? [];
    return this.steps.get(this.visited.get(this.current) ?? children.at(-1));
  }

  #childrenOf(id) {
    return (this.children.get(id) ?? []).map((child) => this.steps.get(child));
  }

  #adopt(step) {
    const siblings = this.children.get(step.parent);
    if (siblings) siblings.push(step.id);
    else this.children.set(step.parent, [step.id]);
  }

  #continues(last, edit, now) {
    const quick = last.kind === "type" && now - last.time < PAUSE_MS && !this.children.get(last.id)?.length;
    const near = Math.abs(edit.at + edit.removed.length - (last.at + last.inserted.length)) <= 1;
    return quick && near && !last.inserted.endsWith("\n");
  }

  #route(id) {
    const above = new Set(this.#ancestors(this.current));
    const down = [];
    let fork = id;
    for (; !above.has(fork); fork = this.steps.get(fork).parent) down.unshift(this.steps.get(fork));
    const up = [];
    for (let at = this.current; at !== fork; at = this.steps.get(at).parent) up.push(this.steps.get(at));
    return { up, down };
  }

  #ancestors(id) {
    const found = [id];
    while (found.at(-1) !== ROOT) found.push(this.steps.get(found.at(-1)).parent);
    return found;
  }
}

function cuts({ kind, removed }) {
  return kind === "choose" || removed.length >= CUT;
}

/** Make an edit part of the step before it, where it only types on. */
function joined(last, edit) {
  if (edit.removed || edit.at !== last.at + last.inserted.length) return false;
  last.inserted += edit.inserted;
  return true;
}

export function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(12)); // randomUUID is missing where a page comes by plain http
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
