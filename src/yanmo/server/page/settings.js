/** How to write: each setting with a sentence of plain words. An empty field is the model's own default. */

import { make } from "./dom.js";
import { say } from "./strings.js";

const KEPT = "yanmo.settings";
const LENGTH_TOKENS = 100;
const VERSE_TOKENS = 1000; // enough for the longest poem, which ends by itself
const COPIED_CHARACTERS = 12;

const number = (name, min, max, step, more = {}) => ({ name, kind: "number", min, max, step, ...more });

const GROUPS = {
  limits: [
    number("max_tokens", 1, 2000, 1, { usual: LENGTH_TOKENS }),
    { name: "stop_at", kind: "select", options: ["sentence", "paragraph", "chapter", "line"] },
  ],
  sampler: [
    number("temperature", 0, 2, 0.01),
    number("top_p", 0.01, 1, 0.01),
    number("top_k", 0, 1000, 1),
    number("min_p", 0, 1, 0.01),
    number("seed", 0, 2 ** 32 - 1, 1, { usual: "" }),
  ],
  repetition: [
    number("repetition_penalty", 1, 2, 0.01),
    number("frequency_penalty", -2, 2, 0.01),
    number("presence_penalty", -2, 2, 0.01),
    number("penalty_window", 0, 100000, 1),
    number("no_repeat_ngram", 0, 100, 1),
    { name: "banned", kind: "lines" },
  ],
  manuscript: [
    number("memory", 0, 1, 0.01, { needs: "memory" }),
    number("no_copy", 0, 1000, 1, { needs: "no_copy" }),
  ],
};

const VERSE = [
  { name: "verse", kind: "select", label: "verseCharacters", options: [5, 7] },
  number("verse_lines", 1, 40, 1, { label: "verseLines" }),
  { name: "acrostic", kind: "text", label: "verseHeads" },
  { name: "rhyme", kind: "check", label: "verseRhyme" },
];

/** Whether a model offers one of the things that not every model can. */
export function offers(model, what) {
  return model !== null && model.yanmo[what] === null; // else a sentence that says why not
}

export class Settings {
  /** @param {HTMLElement} place @param {() => void} changed */
  constructor(place, changed) {
    this.place = place;
    this.changed = changed;
    this.model = null;
    this.values = JSON.parse(localStorage.getItem(KEPT) ?? "{}");
    this.values.verse ??= { on: false, verse: 5, verse_lines: 4, acrostic: "", rhyme: true };
  }

  setModel(model) {
    this.model = model;
    this.render();
  }

  get memory() {
    const kept = this.values.memory ?? "";
    return offers(this.model, "memory") ? Number(kept === "" ? this.#usual({ name: "memory" }) : kept) : 0;
  }

  get copied() {
    return this.values.no_copy > 1 ? this.values.no_copy : COPIED_CHARACTERS; // one alone is no copy
  }

  /** The fields of a request that writes. */
  writing() {
    const fields = Object.values(GROUPS).flat().filter((field) => this.#acts(field));
    const named = fields.map((field) => [field.name, this.values[field.name]]);
    return { max_tokens: LENGTH_TOKENS, ...Object.fromEntries(named), ...this.#verse() };
  }

  render() {
    const groups = Object.entries(GROUPS).map(([group, fields]) => this.#group(say(group), this.#rows(fields)));
    this.place.replaceChildren(...groups, this.#group(say("verse"), this.#verseRows()));
  }

  #acts({ name, needs }) {
    const value = this.values[name];
    const set = value !== undefined && value !== "" && value?.length !== 0;
    return set && (!needs || offers(this.model, needs));
  }

  #verse() {
    const { on, ...form } = this.values.verse;
    return on && offers(this.model, "verse") ? { ...form, max_tokens: VERSE_TOKENS } : {};
  }

  #rows(fields) {
    const isOffered = ({ needs }) => !needs || offers(this.model, needs);
    return fields.map((field) => (isOffered(field) ? this.#row(field, this.values) : this.#missing(field.needs)));
  }

  #verseRows() {
    if (!offers(this.model, "verse")) return [this.#missing("verse")];
    const { verse } = this.values;
    const on = this.#row({ name: "on", kind: "check", label: "verseOn", help: "verseHelp" }, verse);
    return [on, ...VERSE.map((field) => this.#row(field, verse))];
  }

  /** Why the model does not offer something, where the server says so. */
  #missing(what) {
    const why = this.model?.yanmo[what];
    return why ? make("p", { class: "help" }, `${say(what)} — ${why}`) : null;
  }

  #group(title, rows) {
    const shown = rows.filter((row) => row !== null);
    return shown.length ? make("fieldset", {}, make("legend", {}, title), ...shown) : "";
  }

  #row(field, values) {
    const input = CONTROLS[field.kind](field, values[field.name], this.#usual(field));
    input.id = `setting-${field.name}`;
    const keep = () => input.checkValidity() && this.#keep(values, field.name, valueOf(input, field));
    input.addEventListener("change", keep);
    const label = make("label", { for: input.id }, say(field.label ?? field.name));
    const help = field.label ? field.help : `${field.name}Help`;
    return make("div", { class: "setting" }, label, input, help ? make("small", {}, say(help)) : null);
  }

  #usual({ name, usual }) {
    return usual ?? this.model?.yanmo.sample?.[name] ?? "";
  }

  #keep(values, name, value) {
    values[name] = value;
    localStorage.setItem(KEPT, JSON.stringify(this.values));
    this.changed();
  }
}

const CONTROLS = {
  number: ({ min, max, step }, value = "", usual) =>
    make("input", { type: "number", min, max, step, value, placeholder: usual, inputmode: "decimal" }),
  text: (_, value = "") => make("input", { type: "text", value }),
  check: (_, value) => make("input", { type: "checkbox", checked: Boolean(value) }),
  lines: (_, value = []) => {
    const area = make("textarea", { rows: 2 });
    area.value = value.join("\n");
    return area;
  },
  select: ({ options }, value = "") => {
    const written = options.map((option) => make("option", { value: option }, wordOf(option)));
    const none = typeof options[0] === "number" ? [] : [make("option", { value: "" }, say("auto"))];
    const select = make("select", {}, ...none, ...written);
    select.value = value;
    return select;
  },
};

function wordOf(option) {
  return typeof option === "number" ? String(option) : say(option);
}

function valueOf(input, { kind, options }) {
  if (kind === "check") return input.checked;
  if (kind === "lines") return input.value.split("\n").filter((line) => line.trim());
  if (kind === "number") return input.value === "" ? "" : input.valueAsNumber;
  return typeof options?.[0] === "number" ? Number(input.value) : input.value;
}
