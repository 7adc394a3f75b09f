/** The run that made the model: its losses beside the baselines, its samples as they grew, its recipe. */

import { chart } from "./chart.js";
import { make } from "./dom.js";
import { say } from "./strings.js";

export class Run {
  /** @param {HTMLElement} place @param {import("./connection.js").Connection} connection */
  constructor(place, connection) {
    this.place = place;
    this.connection = connection;
    this.model = null;
    this.run = null;
  }

  async show(model) {
    this.model = model;
    const path = model?.yanmo.has_run && `yanmo/run?model=${encodeURIComponent(model.id)}`;
    const run = path ? await this.connection.attempt("run", (server) => server.get(path)) : null;
    if (this.model !== model) return; // another one was chosen meanwhile
    this.run = run;
    this.render();
  }

  render() {
    if (this.run === null) this.place.replaceChildren(make("p", { class: "help" }, say("noRun")));
    else this.place.replaceChildren(...this.#head(), ...this.#curve(), ...this.#samples(), ...this.#recipe());
  }

  #head() {
    const { family, parameters, window, precision, device } = this.model.yanmo;
    const facts = [family, say("parameters", parameters.toLocaleString()), say("context", window), precision, device];
    return [make("h1", {}, this.run.name), make("p", { class: "help" }, facts.join(" · "))];
  }

  #curve() {
    const rows = this.run.metrics;
    const evals = rows.filter((row) => row.event === "eval" && row.val_bits_per_char !== null);
    if (!evals.length) return [make("h2", {}, say("lossCurve")), make("p", { class: "help" }, say("noEvaluation"))];
    const { val_loss, val_bits_per_char } = evals.at(-1);
    const bits = val_bits_per_char / val_loss; // per nat of a token
    const train = rows.filter((row) => row.event === "train").map((row) => [row.step, row.loss * bits]);
    const curves = [
      { name: say("train"), kind: "train", points: train.filter(([, value]) => Number.isFinite(value)) },
      { name: say("validation"), kind: "validation", points: evals.map((row) => [row.step, row.val_bits_per_char]) },
    ];
    return [make("h2", {}, say("lossCurve")), chart(curves, baselines(rows))];
  }

  #samples() {
    const written = this.run.samples.map(({ step, text }) =>
      make("article", { class: "sample" }, make("h3", {}, say("step", step)), make("p", {}, text)));
    return written.length ? [make("h2", {}, say("samples")), ...written] : [];
  }

  #recipe() {
    return [make("h2", {}, say("recipe")), make("pre", {}, this.run.recipe)];
  }
}

function baselines(rows) {
  const start = rows.find((row) => row.event === "start") ?? {};
  const known = ["uniform", "unigram", "bigram"].filter((name) => Number.isFinite(start[`${name}_bits_per_char`]));
  return known.map((name) => ({ name: say(name), value: start[`${name}_bits_per_char`] }));
}
