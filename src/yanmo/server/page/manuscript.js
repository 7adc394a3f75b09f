/** One manuscript: its history, title and pinned notes, saved soon after every change. */

import { later } from "./dom.js";
import { History, newId, ROOT } from "./history.js";

const SAVE_AFTER_MS = 300;
const LEFT = "yanmo.left."; // and an id: what a page that went had not written down

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
    this.underway = null; // the steps that are being written down
    this.saved = Promise.resolve(); // one after another
    this.saving = later(SAVE_AFTER_MS, () => (this.saved = this.saved.then(() => this.#save())));
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
    if (this.saving.waits()) this.saving.now();
    await this.saved;
  }

  /** The page goes, and the database would answer too late: what it has not confirmed is left beside it. */
  leave() {
    if (!this.underway && !this.saving.waits()) return;
    const steps = [...(this.underway ?? []), ...this.history.unsaved.values()];
    localStorage.setItem(LEFT + this.id, JSON.stringify({ record: this.record(), steps }));
  }

  /** Put into the database what pages that went have left. @param {(error: Error) => void} told of what cannot be */
  static async recover(store, told) {
    for (const key of Object.keys(localStorage).filter((name) => name.startsWith(LEFT))) {
      try {
        const { record, steps } = JSON.parse(localStorage.getItem(key));
        const known = (await store.read(record.id)).record;
        await store.save(known?.time > record.time ? known : record, steps);
        localStorage.removeItem(key);
      } catch (error) {
        told(error); // it stays where it is, and one can write
      }
    }
  }

  /** @returns {import("./store.js").Manuscript} */
  record() {
    const { text, current } = this.history;
    return { id: this.id, title: this.title, pinned: this.pinned, text, current, time: Date.now() };
  }

  async #save() {
    const steps = this.history.takeUnsaved();
    this.underway = steps;
    try {
      if (!this.store) throw new Error("IndexedDB");
      await this.store.save(this.record(), steps);
      if (!this.history.unsaved.size) localStorage.removeItem(LEFT + this.id); // it went and came back
      this.told(null);
    } catch (error) {
      this.history.giveBack(steps);
      this.told(error);
    } finally {
      this.underway = null;
    }
  }
}

function blank() {
  return { id: newId(), title: "", pinned: "", text: "", current: ROOT, time: Date.now() };
}
