/** One manuscript: its history, title and pinned notes, saved soon after every change. */

import { later } from "./dom.js";
import { History, newId, ROOT } from "./history.js";

const SAVE_AFTER_MS = 300;

export class Manuscript {
  /**
   * @param {import("./store.js").Store|null} store null where the browser has none
   * @param {(error: Error|null) => void} told after every attempt to save
   */
  constructor(store, told, record = blank(), steps = []) {
    this.store = store;
    this.told = told;
    this.id = record.id;
    this.title = record.title;
    this.pinned = record.pinned;
    this.history = new History(steps, record.current, record.text);
    this.saving = later(SAVE_AFTER_MS, () => this.#save());
  }

  /** Something has: it is saved soon, also while one types on. */
  changed() {
    if (!this.saving.waits()) this.saving();
  }

  /** Open a manuscript that is kept. */
  static async open(store, told, id) {
    const { record, steps } = await store.read(id);
    return new Manuscript(store, told, record, steps);
  }

  /** Write down now what is still to be written. */
  async close() {
    if (this.saving.waits()) await this.saving.now();
  }

  /** @returns {import("./store.js").Manuscript} */
  record() {
    const { text, current } = this.history;
    return { id: this.id, title: this.title, pinned: this.pinned, text, current, time: Date.now() };
  }

  async #save() {
    const steps = this.history.takeUnsaved();
    try {
      if (!this.store) throw new Error("IndexedDB");
      await this.store.save(this.record(), steps);
      this.told(null);
    } catch (error) {
      this.history.giveBack(steps);
      this.told(error);
    }
  }
}

function blank() {
  return { id: newId(), title: "", pinned: "", text: "", current: ROOT, time: Date.now() };
}
