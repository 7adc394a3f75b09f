/**
 * Places in a text.
 *
 * The server counts characters (code points), the browser UTF-16 units: everything here takes and gives units,
 * and `units` turns the server's numbers into them.
 */

/** @typedef {{at: number, removed: string, inserted: string}} Edit */

const ENDS = "。！？!?…\n";
const CLOSING = "”’」』）》】)\"'";

/** How many characters a text has, as the server counts. */
export function countCharacters(text) {
  let count = text.length;
  for (let i = 1; i < text.length; i++) if (isLow(text, i) && isHigh(text, i - 1)) count--;
  return count;
}

/** The places of ascending character numbers, in UTF-16 units; what lies beyond the end is the end. */
export function units(text, numbers) {
  const found = [];
  let unit = 0;
  let character = 0;
  for (const number of numbers) {
    while (character < number && unit < text.length) {
      unit += isHigh(text, unit) && isLow(text, unit + 1) ? 2 : 1;
      character++;
    }
    found.push(unit);
  }
  return found;
}

/** What was changed between two texts, as one edit. */
export function editBetween(before, after) {
  const shorter = Math.min(before.length, after.length);
  let start = 0;
  while (start < shorter && before[start] === after[start]) start++;
  start = wholeBefore(before, wholeBefore(after, start)); // 😀 and 😁 begin with the same unit
  let end = 0;
  while (end < shorter - start && before[before.length - 1 - end] === after[after.length - 1 - end]) end++;
  if (isLow(after, after.length - end) || isLow(before, before.length - end)) end--;
  return {
    at: start,
    removed: before.slice(start, before.length - end),
    inserted: after.slice(start, after.length - end),
  };
}

/** @param {string} text @param {Edit} edit */
export function applyEdit(text, edit) {
  return text.slice(0, edit.at) + edit.inserted + text.slice(edit.at + edit.removed.length);
}

/** @param {Edit} edit @returns {Edit} the edit that takes it back */
export function inverse(edit) {
  return { at: edit.at, removed: edit.inserted, inserted: edit.removed };
}

/** Where the first sentence of a text ends, closing quotes and line ends included. */
export function sentenceEnd(text) {
  let end = 0;
  while (end < text.length && !ENDS.includes(text[end])) end++;
  while (end < text.length && (ENDS + CLOSING).includes(text[end])) end++;
  return end;
}

/** A place that is not within a character, at or in front of one: an emoji is two units. */
export function wholeBefore(text, place) {
  return isLow(text, place) && isHigh(text, place - 1) ? place - 1 : place;
}

/** Line ends as a textarea keeps them, and no half of a character, which UTF-8 cannot carry. */
export function clean(text) {
  return cleanUnits(text.replaceAll("\r\n", "\n"));
}

/** The same, unit for unit, for a text whose places are known. */
export function cleanUnits(text) {
  return text.replaceAll("\r", "\n").toWellFormed();
}

function isHigh(text, i) {
  return (text.charCodeAt(i) & 0xfc00) === 0xd800;
}

function isLow(text, i) {
  return (text.charCodeAt(i) & 0xfc00) === 0xdc00;
}
