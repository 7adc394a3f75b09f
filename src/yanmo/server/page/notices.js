/** Bars above the manuscript that say what is wrong. */

import { make } from "./dom.js";
import { say } from "./strings.js";

export class Notices {
  /** @param {HTMLElement} place */
  constructor(place) {
    this.place = place;
    this.shown = new Map();
  }

  /** @param {string} key one bar for each @param {() => string} words in the language of the moment */
  show(key, words = () => say(key)) {
    this.shown.set(key, words);
    this.render();
  }

  hide(key) {
    if (this.shown.delete(key)) this.render();
  }

  render() {
    const bars = [...this.shown].map(([key, words]) => make("p", { class: `notice ${key}` }, words(), this.#closer(key)));
    this.place.replaceChildren(...bars);
  }

  #closer(key) {
    const close = () => this.hide(key);
    return make("button", { type: "button", class: "quiet", "aria-label": say("close"), onclick: close }, "×");
  }
}
