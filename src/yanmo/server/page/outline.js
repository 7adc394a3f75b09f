/** The chapters of the manuscript, as yanmo's own splitter finds them; a click goes there. */

import { make } from "./dom.js";
import { say } from "./strings.js";
import { units } from "./text.js";

export class Outline {
  /** @param {HTMLElement} place @param {import("./writing.js").Writing} writing */
  constructor(place, writing) {
    this.place = place;
    this.writing = writing;
    this.chapters = [];
  }

  async refresh() {
    const { text, connection } = this.writing;
    const answer = text && (await connection.attempt("outline", (server) => server.post("yanmo/outline", { text })));
    const chapters = answer ? answer.chapters : [];
    const places = units(text, chapters.map(({ offset }) => offset));
    this.chapters = chapters.map(({ title }, i) => ({ title, place: places[i] }));
    this.render();
  }

  render() {
    const rows = this.chapters.map((chapter) => make("li", {}, this.#link(chapter)));
    const none = make("p", { class: "help" }, say("noChapters"));
    this.place.replaceChildren(rows.length ? make("ol", { class: "outline" }, ...rows) : none);
  }

  #link({ title, place }) {
    const { editor } = this.writing;
    const go = () => {
      editor.area.focus({ preventScroll: true });
      editor.area.setSelectionRange(place, place);
      scrollBy({ top: editor.mirror.rectangle(place, place + 1).top - innerHeight / 4 });
    };
    return make("button", { type: "button", class: "row", onclick: go }, title.trim() || "—");
  }
}
