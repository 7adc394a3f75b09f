/** The page put together: who tells whom, and which key does what. */

import { Alternatives } from "./alternatives.js";
import { Server } from "./api.js";
import { Books } from "./books.js";
import { Branches } from "./branches.js";
import { Candidates } from "./candidates.js";
import { Connection } from "./connection.js";
import { byId, later, make } from "./dom.js";
import { Editor } from "./editor.js";
import { Manuscript } from "./manuscript.js";
import { Notes } from "./notes.js";
import { Notices } from "./notices.js";
import { Outline } from "./outline.js";
import { Run } from "./run.js";
import { offers, Settings } from "./settings.js";
import { Store } from "./store.js";
import { say, sayAll, switchLanguage } from "./strings.js";
import { countCharacters } from "./text.js";
import { switchTheme } from "./theme.js";
import { Writing } from "./writing.js";
import { askToken } from "./token.js";

const LAST = "yanmo.last"; // the manuscript that was open
const FOLLOW_MS = 800; // from the last change until a panel shows it

let models = [];
let model = null;

const notices = new Notices(byId("notices"));
const connection = new Connection(new Server(askToken), notices, () => begin());
const editor = new Editor(byId("text"), byId("layer"), byId("tools"));
const settings = new Settings(byId("panel-settings"), () => settingsChanged());
const writing = new Writing(editor, connection, {
  model: () => model,
  writing: () => settings.writing(),
  copied: () => settings.copied,
});
const store = await Store.open().catch(() => null);
const alternatives = new Alternatives(byId("alternatives"), writing);
const candidates = new Candidates(byId("candidates"), writing);
const noted = { area: byId("pinned"), bar: byId("window-bar"), words: byId("window-words") };
const notes = new Notes(noted, writing, () => model);
const outline = new Outline(byId("panel-outline"), writing);
const branches = new Branches(byId("panel-branches"), writing);
const run = new Run(byId("run"), connection);
const books = new Books(byId("panel-books"), store, {
  current: () => writing.manuscript,
  open,
  refused: (words) => notices.show("refused", () => say("damaged", words)),
});

// -- manuscripts --------------------------------------------------------------------------------

function told(error) {
  const { dataset } = byId("saved");
  dataset.say = dataset.sayTitle = error ? "saving" : "saved"; // a phone shows a dot with a title
  sayAll(byId("tools"));
  if (error) notices.show("unsaved", () => say("unsaved", error.message));
  else notices.hide("unsaved");
}

async function open(id) {
  await writing.manuscript?.close();
  const manuscript = id ? await Manuscript.open(store, told, id) : new Manuscript(store, told);
  localStorage.setItem(LAST, manuscript.id);
  writing.open(manuscript);
  byId("title").value = manuscript.title;
  notes.open();
  showPanel();
}

async function openLast() {
  if (store) await Manuscript.recover(store, told);
  const kept = store ? await store.list() : [];
  const last = kept.find(({ id }) => id === localStorage.getItem(LAST)) ?? kept[0];
  await open(last?.id);
}

// -- the model ----------------------------------------------------------------------------------

async function begin() {
  const answer = await connection.attempt("models", (server) => server.get("v1/models"));
  models = answer?.data ?? [];
  const options = models.map(({ id }) => make("option", { value: id }, id));
  byId("model").replaceChildren(...options);
  takeModel(models.find(({ id }) => id === model?.id) ?? models[0] ?? null);
}

function takeModel(taken) {
  model = taken;
  byId("model").value = model?.id ?? "";
  byId("model").disabled = models.length < 2;
  settings.setModel(model);
  byId("underlines").hidden = !offers(model, "no_copy");
  if (byId("underlines").hidden) writing.setUnderlines(false);
  notes.count();
  writing.forgetColours();
  render();
  if (!byId("run").hidden) run.show(model);
}

function settingsChanged() {
  writing.refresh(); // how much counts as copied
  render();
}

// -- what is shown ------------------------------------------------------------------------------

function render() {
  const { history } = writing.manuscript;
  byId("undo").disabled = !history.canUndo();
  byId("redo").disabled = !history.canRedo();
  byId("count").textContent = say("count", countCharacters(writing.text).toLocaleString());
  byId("continue").textContent = say(writing.offer?.running ? "stop" : "continue");
  byId("hints").hidden = !writing.offer?.ghost || candidates.open;
  byId("memory").hidden = !settings.memory;
  byId("colours").setAttribute("aria-pressed", String(writing.colours));
  byId("underlines").setAttribute("aria-pressed", String(writing.underlines));
  byId("legend").hidden = !writing.colours;
  byId("text").classList.toggle("clickable", writing.colours);
}

function renderAll() {
  sayAll(document);
  const counts = [1, 2, 3, 4].map((n) => make("option", { value: n }, n === 1 ? say("one") : say("several", n)));
  const chosen = byId("ways").value || "1";
  byId("ways").replaceChildren(...counts);
  byId("ways").value = chosen;
  for (const view of [notices, settings, notes, outline, candidates, run]) view.render();
  showPanel();
  render();
}

const PANELS = {
  books: () => books.render(),
  notes: () => notes.count(),
  outline: () => outline.refresh(),
  branches: () => branches.render(),
  settings: () => settings.render(),
};

const FOLLOWING = ["outline", "branches"]; // what they show changes with the text

const follow = later(FOLLOW_MS, () => {
  const { shown } = byId("panel").dataset;
  if (FOLLOWING.includes(shown)) PANELS[shown]();
});

function togglePanel(name) {
  const panel = byId("panel");
  const closes = panel.dataset.shown === name;
  panel.dataset.shown = closes ? "" : name;
  document.body.classList.toggle("with-panel", !closes);
  showPanel();
  if (closes) editor.area.focus({ preventScroll: true });
}

function showPanel() {
  const { shown } = byId("panel").dataset;
  byId("panel").hidden = !shown;
  for (const name of Object.keys(PANELS)) {
    byId(`panel-${name}`).hidden = name !== shown;
    byId(`show-${name}`).setAttribute("aria-pressed", String(name === shown));
  }
  if (shown) {
    byId("panel-title").textContent = say(shown);
    PANELS[shown]();
  }
}

function showTab(name) {
  for (const tab of ["write", "run"]) {
    byId(tab).hidden = tab !== name;
    byId(`tab-${tab}`).setAttribute("aria-selected", String(tab === name));
  }
  byId("tools").hidden = name !== "write";
  document.body.classList.toggle("reading", name === "run");
  if (name === "run") run.show(model);
}

// -- what is done -------------------------------------------------------------------------------

function proceed() {
  alternatives.close();
  if (!model) begin();
  else writing.continue(Number(byId("ways").value));
  editor.area.focus({ preventScroll: true });
}

function showAlternatives(place) {
  const cell = place === null ? null : writing.cellAt(place);
  if (cell) alternatives.show(cell);
}

/** The key that was pressed in the manuscript → what it does, or nothing. */
function actionOf(event) {
  const { key } = event;
  const plain = !event.ctrlKey && !event.metaKey && !event.altKey && !event.shiftKey;
  const ghost = plain && writing.offer?.ghost && !candidates.open;
  if (key === "Tab" && ghost) return () => writing.acceptAll();
  if (key === "Tab" && plain && candidates.open) return () => candidates.focus();
  if (key === "ArrowRight" && ghost && !editor.selects) return () => writing.acceptSentence();
  if (event.altKey && key === "ArrowDown") return () => showAlternatives(Math.max(0, editor.caret - 1));
  return null;
}

/** Keys that work wherever one is on the page. */
function actionAnywhere(event) {
  const { key } = event;
  const command = event.ctrlKey || event.metaKey;
  const letter = key.toLowerCase();
  const ours = event.target === editor.area || !event.target.matches("input, textarea");
  if (command && key === "Enter") return proceed;
  if (command && ours && letter === "z") return () => (event.shiftKey ? writing.redo() : writing.undo());
  if (command && ours && letter === "y") return () => writing.redo();
  if (key === "Escape") return leave();
  return null;
}

/** What Escape leaves: the innermost thing that is open. */
function leave() {
  if (alternatives.open) return () => alternatives.close();
  if (writing.offer) return () => writing.close();
  if (byId("panel").dataset.shown) return () => togglePanel(byId("panel").dataset.shown);
  return null;
}

function pressed(event) {
  if (byId("token").open) return; // the dialog has its own keys
  if (event.isComposing || editor.composing || event.keyCode === 229) return; // 229: Safari's last key of a composition
  const action = (event.target === editor.area && actionOf(event)) || (!byId("write").hidden && actionAnywhere(event));
  if (!action) return;
  event.preventDefault();
  action();
}

function onClick(id, action) {
  byId(id).addEventListener("click", () => editor.composing || action());
}

document.addEventListener("keydown", pressed);
editor.area.addEventListener("beforeinput", (event) => {
  const own = { historyUndo: () => writing.undo(), historyRedo: () => writing.redo() }[event.inputType];
  if (!own) return;
  event.preventDefault(); // the browser's own list of changes knows nothing of ours
  own();
});
editor.area.addEventListener("click", (event) => {
  if (writing.colours && !editor.selects) showAlternatives(editor.placeAt(event.clientX, event.clientY));
});
document.addEventListener("pointerdown", (event) => {
  if (!byId("alternatives").contains(event.target)) alternatives.close();
});
writing.addEventListener("change", () => {
  alternatives.follow();
  candidates.render();
  notes.count();
  follow();
  render();
});
writing.addEventListener("caret", () => notes.count());
byId("title").addEventListener("input", (event) => {
  writing.manuscript.title = event.target.value;
  writing.manuscript.changed();
});
byId("model").addEventListener("change", (event) => takeModel(models.find(({ id }) => id === event.target.value)));
for (const name of Object.keys(PANELS)) onClick(`show-${name}`, () => togglePanel(name));
onClick("panel-close", () => togglePanel(byId("panel").dataset.shown));
for (const tab of ["write", "run"]) onClick(`tab-${tab}`, () => showTab(tab));
onClick("continue", () => (writing.offer?.running ? writing.offer.stop() : proceed()));
onClick("undo", () => writing.undo());
onClick("redo", () => writing.redo());
onClick("colours", () => writing.setColours(!writing.colours));
onClick("underlines", () => writing.setUnderlines(!writing.underlines));
onClick("accept-all", () => writing.acceptAll());
onClick("accept-sentence", () => writing.acceptSentence());
onClick("reject", () => writing.close());
onClick("again", proceed);
onClick("theme", switchTheme);
onClick("language", () => {
  switchLanguage();
  renderAll();
});
byId("tools").addEventListener("mousedown", (event) => {
  if (event.target.closest("button:not(.card)")) event.preventDefault(); // the caret stays in the manuscript
});
addEventListener("pagehide", () => writing.manuscript.leave());
document.addEventListener("visibilitychange", () => writing.manuscript.close());

await openLast();
renderAll();
document.body.dataset.ready = "true";
editor.area.focus({ preventScroll: true });
await begin();
