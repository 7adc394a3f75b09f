/** The manuscripts in this browser: another one, a new one, to files and from them. */

import { make } from "./dom.js";
import { readJson, saveJson, saveText } from "./files.js";
import { language, say } from "./strings.js";
import { countCharacters } from "./text.js";

export class Books {
  /**
   * @param {HTMLElement} place
   * @param {import("./store.js").Store|null} store
   * @param {{current: () => Manuscript, open: (id?: string) => Promise<void>, refused: (words: string) => void}} shelf
   */
  constructor(place, store, shelf) {
    Object.assign(this, { place, store, shelf });
  }

  async render() {
    const current = this.shelf.current();
    await current.close();
    const records = this.store ? await this.store.list() : [];
    const rows = records.map((record) => this.#row(record, record.id === current.id));
    const parts = [this.#exporter(".txt", saveText), this.#exporter(".json", saveJson), this.#importer()];
    const files = make("div", { class: "buttons" }, ...parts);
    const fresh = make("button", { type: "button", class: "small", onclick: () => this.#open() }, say("newBook"));
    this.place.replaceChildren(files, make("ul", { class: "books" }, ...rows), fresh);
  }

  #row(record, here) {
    const title = record.title || record.text.trim().slice(0, 16) || say("untitled");
    const time = new Date(record.time).toLocaleDateString(language());
    const words = make("small", {}, `${say("count", countCharacters(record.text))} · ${time}`);
    const open = make("button", { type: "button", class: "row", onclick: () => this.#open(record.id) }, title, words);
    if (here) open.setAttribute("aria-current", "true");
    const remove = () => this.#remove(record, title, here);
    const named = { class: "quiet", "aria-label": say("remove"), title: say("remove") };
    return make("li", {}, open, make("button", { type: "button", ...named, onclick: remove }, "×"));
  }

  #exporter(ending, save) {
    const words = `${say("export")} ${ending}`;
    return make("button", { type: "button", class: "small", onclick: () => save(this.shelf.current()) }, words);
  }

  #importer() {
    const input = make("input", { type: "file", accept: ".json,application/json", class: "file" });
    input.addEventListener("change", () => this.#import(input.files[0]));
    return make("label", { class: "small" }, say("import"), input);
  }

  async #import(file) {
    try {
      const { record, steps } = readJson(await file.text());
      await this.store.save(record, steps);
      await this.#open(record.id);
    } catch (error) {
      this.shelf.refused(error.message);
    }
  }

  async #open(id) {
    await this.shelf.open(id);
    await this.render();
  }

  async #remove(record, title, here) {
    if (!confirm(say("removeSure", title))) return;
    if (here) await this.shelf.open((await this.store.list()).find(({ id }) => id !== record.id)?.id);
    await this.store.remove(record.id);
    await this.render();
  }
}
