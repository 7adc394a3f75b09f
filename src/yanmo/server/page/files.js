/** Manuscripts as files: .txt is the text as it reads, .json is everything, and comes back. */

import { make } from "./dom.js";
import { History, newId, ROOT } from "./history.js";
import { applyEdit } from "./text.js";

const KIND = "yanmo-manuscript-1";

export function saveText(manuscript) {
  download(manuscript, "txt", "text/plain", manuscript.history.text);
}

export function saveJson(manuscript) {
  const steps = [...manuscript.history.steps.values()];
  const whole = { kind: KIND, ...manuscript.record(), steps };
  download(manuscript, "json", "application/json", JSON.stringify(whole, null, 1));
}

/** A file's text → a record and its steps, as a manuscript of its own; an Error says what is wrong with it. */
export function readJson(text) {
  const { kind, title, pinned, text: now, current, steps } = JSON.parse(text);
  if (kind !== KIND) throw new Error("kind");
  if (![title, pinned, now, current].every(isText) || !Array.isArray(steps)) throw new Error("fields");
  const ours = steps.map(stepOf);
  assertTree(ours, current, now);
  return { record: { id: newId(), title, pinned, text: now, current, time: Date.now() }, steps: ours };
}

function stepOf({ id, parent, group, kind, at, removed, inserted, time }) {
  const whole = [id, parent, group, kind, removed, inserted].every(isText) && Number.isInteger(at) && at >= 0;
  if (!whole || !Number.isFinite(time) || id === ROOT) throw new Error("steps");
  return { id, parent, group, kind, at, removed, inserted, time };
}

/** Every step must hang on the root and fit the text it was made in, and the current one must give the text. */
function assertTree(steps, current, now) {
  const { children, steps: known } = new History(steps);
  let reached = 0;
  let found = current === ROOT ? "" : null;
  const open = [[ROOT, ""]];
  while (open.length) {
    const [id, text] = open.pop();
    if (id === current) found = text;
    for (const step of (children.get(id) ?? []).map((child) => known.get(child))) {
      if (step.at > text.length || !text.startsWith(step.removed, step.at)) throw new Error("steps");
      open.push([step.id, applyEdit(text, step)]);
      reached++;
    }
  }
  if (reached !== steps.length || known.size !== steps.length || found !== now) throw new Error("text");
}

function isText(value) {
  return typeof value === "string";
}

function download(manuscript, ending, type, text) {
  const url = URL.createObjectURL(new Blob([text], { type: `${type};charset=utf-8` }));
  const name = (manuscript.title || "yanmo").replace(/[\\/:*?"<>|\p{C}]/gu, "_").slice(0, 80);
  make("a", { href: url, download: `${name}.${ending}` }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}
