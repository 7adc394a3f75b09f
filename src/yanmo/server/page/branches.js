/** The ways the manuscript has gone: each can be looked at, and returned to. */

import { make } from "./dom.js";
import { language, say } from "./strings.js";
import { countCharacters, editBetween } from "./text.js";

const SNIPPET = 60;
const SHOWN = 100; // the newest; all are kept

export class Branches {
  /** @param {HTMLElement} place @param {import("./writing.js").Writing} writing */
  constructor(place, writing) {
    this.place = place;
    this.writing = writing;
  }

  render() {
    const { history } = this.writing.manuscript;
    const places = history.places().slice(0, SHOWN);
    const words = say(places.length > 1 ? "branchesHelp" : "noBranches");
    const list = make("ol", { class: "branches" }, ...places.map((step) => this.#branch(history, step)));
    this.place.replaceChildren(make("p", { class: "help" }, words), list);
  }

  #branch(history, step) {
    const text = history.textAt(step.id);
    const { at } = editBetween(history.text, text);
    const here = step.id === history.current;
    const time = new Date(step.time).toLocaleString(language(), { dateStyle: "short", timeStyle: "short" });
    const head = make("p", { class: "head" }, `${time} · ${say("count", countCharacters(text))}`);
    if (here) return make("li", { class: "here" }, head, make("p", {}, say("here")));
    const own = make("p", { class: "own" }, text.slice(at, at + SNIPPET) || "∅");
    const shares = make("p", { class: "help" }, say("shares", countCharacters(text.slice(0, at))));
    return make("li", {}, head, shares, own, this.#look(text, at), this.#return(step));
  }

  /** The whole text, opened in place, its own part marked. */
  #look(text, at) {
    const whole = make("div", { class: "whole" });
    const fill = () => whole.replaceChildren(text.slice(0, at), make("mark", {}, text.slice(at)));
    return make("details", { ontoggle: fill }, make("summary", {}, say("look")), whole);
  }

  #return(step) {
    const back = () => {
      this.writing.goTo(step.id);
      this.render();
    };
    return make("button", { type: "button", class: "small", onclick: back }, say("return"));
  }
}
