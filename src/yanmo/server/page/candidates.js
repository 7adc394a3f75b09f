/** Several continuations side by side, with how likely the model found each; choosing one writes it. */

import { make } from "./dom.js";
import { say } from "./strings.js";

export class Candidates {
  /** @param {HTMLElement} place @param {import("./writing.js").Writing} writing */
  constructor(place, writing) {
    this.place = place;
    this.writing = writing;
    this.offer = null;
    this.cards = [];
    place.addEventListener("keydown", (event) => this.#key(event));
  }

  get open() {
    return this.cards.length > 0;
  }

  focus() {
    this.cards[0].focus();
  }

  render() {
    const { offer } = this.writing;
    const several = offer !== null && offer.candidates.length > 1;
    if (!several) this.#clear();
    else if (offer !== this.offer) this.#deal(offer);
    this.offer = several ? offer : null;
    this.cards.forEach((card, i) => fill(card, offer.candidates[i], offer.running, offer.likeliest));
  }

  #deal(offer) {
    this.cards = offer.candidates.map((candidate, i) => this.#card(candidate, i));
    this.place.replaceChildren(...this.cards);
    this.place.hidden = false;
    this.writing.editor.reveal();
  }

  #clear() {
    const hadFocus = this.place.contains(document.activeElement);
    this.cards = [];
    this.place.replaceChildren();
    this.place.hidden = true;
    if (hadFocus) this.writing.editor.area.focus();
  }

  #card(candidate, i) {
    const preview = () => this.writing.offer && this.writing.preview(candidate);
    const choose = () => this.writing.choose(candidate);
    const parts = [make("span", { class: "text", onscroll: ({ target }) => fade(target) }), make("span", { class: "measure" })];
    const attributes = { type: "button", class: "card", "data-number": String(i + 1) };
    return make("button", { ...attributes, onfocus: preview, onmouseenter: preview, onclick: choose }, ...parts);
  }

  #key(event) {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const at = this.cards.indexOf(document.activeElement);
    this.cards[(at + step + this.cards.length) % this.cards.length].focus();
  }
}

/** Mark a text that goes on below. */
function fade(written) {
  written.classList.toggle("cut", written.scrollTop + written.clientHeight < written.scrollHeight - 1);
}

function fill(card, candidate, running, likeliest) {
  const { text, meanLogprob } = candidate;
  const [written, measure] = card.children;
  written.textContent = text.replace(/^([ \t\u3000]*\n)+(?=.*\S)/s, ""); // begins with what can be read
  fade(written);
  card.classList.toggle("likeliest", candidate === likeliest);
  const percent = `${(100 * Math.exp(meanLogprob)).toFixed(1)}%`;
  if (meanLogprob === null) measure.textContent = say(running ? "thinking" : "stopped");
  else measure.textContent = say(candidate === likeliest ? "likeliest" : "meanProbability", percent);
}
