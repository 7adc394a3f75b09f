/**
 * Manuscripts, kept in the browser (IndexedDB).
 *
 * A manuscript's record holds its title, notes and text as it now reads; its steps are records of their own, added
 * in the same transaction: after a crash either both are there or neither.
 */

/** @typedef {import("./history.js").Step} Step */
/** @typedef {{id: string, title: string, pinned: string, text: string, current: string, time: number}} Manuscript */

export class Store {
  /** @param {IDBDatabase} database */
  constructor(database) {
    this.database = database;
  }

  static async open() {
    const asked = indexedDB.open("yanmo", 1);
    asked.onupgradeneeded = () => {
      asked.result.createObjectStore("manuscripts", { keyPath: "id" });
      asked.result.createObjectStore("steps", { keyPath: ["manuscript", "id"] });
    };
    return new Store(await answer(asked));
  }

  /** @returns {Promise<Manuscript[]>} the newest first */
  async list() {
    const found = await answer(this.#begin("readonly").objectStore("manuscripts").getAll());
    return found.sort((a, b) => b.time - a.time);
  }

  /** @returns {Promise<{record: Manuscript, steps: Step[]}>} steps in the order they were made */
  async read(id) {
    const transaction = this.#begin("readonly");
    const record = answer(transaction.objectStore("manuscripts").get(id));
    const steps = answer(transaction.objectStore("steps").getAll(stepsOf(id)));
    return { record: await record, steps: (await steps).sort((a, b) => a.time - b.time) };
  }

  /** @param {Manuscript} manuscript @param {Step[]} steps those that are new */
  async save(manuscript, steps) {
    const transaction = this.#begin("readwrite");
    transaction.objectStore("manuscripts").put(manuscript);
    for (const step of steps) transaction.objectStore("steps").put({ ...step, manuscript: manuscript.id });
    transaction.commit(); // now, not when the requests are answered: the page may be leaving
    await done(transaction);
  }

  async remove(id) {
    const transaction = this.#begin("readwrite");
    transaction.objectStore("manuscripts").delete(id);
    transaction.objectStore("steps").delete(stepsOf(id));
    await done(transaction);
  }

  #begin(mode) {
    return this.database.transaction(["manuscripts", "steps"], mode, { durability: "strict" });
  }
}

function stepsOf(id) {
  return IDBKeyRange.bound([id], [id, []]); // an array is above every string
}

function answer(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

function done(transaction) {
  return new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve();
    transaction.onabort = () => reject(transaction.error);
  });
}
