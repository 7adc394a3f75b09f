/** The pinned notes, and a bar that shows how much of the window they and the text in front of the caret fill. */

import { later } from "./dom.js";
import { say } from "./strings.js";
import { clean } from "./text.js";

const IDLE_MS = 600;
const CHARACTERS_A_TOKEN = 8; // more than any token is long on average: what lies farther back is out of the window

export class Notes {
  /**
   * @param {{area: HTMLTextAreaElement, bar: HTMLElement, words: HTMLElement}} parts
   * @param {import("./writing.js").Writing} writing
   * @param {() => object|null} model
   */
  constructor(parts, writing, model) {
    Object.assign(this, parts, { writing, model });
    this.counts = null;
    this.count = later(IDLE_MS, () => this.#count());
    this.area.addEventListener("input", () => this.#noted());
  }

  open() {
    this.area.value = this.writing.manuscript.pinned;
    this.count();
  }

  render() {
    this.bar.parentElement.hidden = this.counts === null;
    if (this.counts === null) return;
    const { pinned, text, window } = this.counts;
    this.bar.style.setProperty("--pinned", String(Math.min(1, pinned / window)));
    this.bar.style.setProperty("--used", String(Math.min(1, (pinned + text) / window)));
    const full = pinned + text >= window;
    this.bar.classList.toggle("full", full);
    this.words.textContent = full ? say("windowFull", window) : say("window", pinned + text, window);
  }

  #noted() {
    const { writing } = this;
    writing.manuscript.pinned = clean(this.area.value);
    writing.manuscript.changed();
    this.count();
  }

  async #count() {
    const { writing } = this;
    const model = this.model();
    if (!model || writing.editor.composing) return;
    const { window } = model.yanmo;
    const before = writing.text.slice(0, writing.editor.caret).slice(-window * CHARACTERS_A_TOKEN);
    const pinned = await this.#tokens(model, writing.manuscript.pinned);
    const text = await this.#tokens(model, before.toWellFormed());
    this.counts = pinned === null || text === null ? null : { pinned, text, window };
    this.render();
  }

  async #tokens(model, prompt) {
    if (!prompt) return 0;
    const body = { model: model.id, prompt };
    const answer = await this.writing.connection.attempt("window", (server) => server.post("tokenize", body));
    return answer && answer.count;
  }
}
