/** A curve of losses, drawn as SVG by calls. */

const WIDEST = 760;
const HEIGHT = 340;
const [LEFT, RIGHT, TOP, BOTTOM] = [44, 124, 16, 34];
const MARGINS = 40; // of the page, left and right together
const TICK_GAP = 110;
const NAME_GAP = 15; // between names of lines, so that none lies over another

/** @typedef {{name: string, kind: string, points: [number, number][]}} Curve points are (step, value) */

/** @param {Curve[]} curves @param {{name: string, value: number}[]} lines level ones, to compare with */
export function chart(curves, lines) {
  const drawn = curves.filter(({ points }) => points.length);
  const end = Math.min(WIDEST, innerWidth - MARGINS) - RIGHT; // letters are as large on a phone
  const steps = Math.max(1, ...drawn.flatMap(({ points }) => points.map(([step]) => step)));
  const values = [...drawn.flatMap(({ points }) => points.map(([, value]) => value)), ...lines.map(({ value }) => value)];
  const top = 1.05 * Math.max(1, ...values);
  const x = (step) => LEFT + ((end - LEFT) * step) / steps;
  const y = (value) => HEIGHT - BOTTOM - ((HEIGHT - TOP - BOTTOM) * value) / top;
  const level = (value, kind) => svg("path", { class: kind, d: `M${LEFT} ${y(value)}H${end}` });
  return svg("svg", { viewBox: `0 0 ${end + RIGHT} ${HEIGHT}`, class: "chart", role: "img" },
    ...ticks(top, 5).flatMap((value) => [level(value, "grid"), label(value, LEFT - 8, y(value) + 4, "end")]),
    ...ticks(steps, (end - LEFT) / TICK_GAP).map((step) => label(step, x(step), HEIGHT - BOTTOM + 20, "middle")),
    ...lines.map(({ value }) => level(value, "level")),
    ...drawn.map(({ kind, points }) => svg("path", { class: `curve ${kind}`, d: path(points, x, y) })),
    ...names([...lines.map((line) => ({ ...line, kind: "level" })), ...drawn.map(lastOf)], end + 8, y));
}

function path(points, x, y) {
  return points.map(([step, value], i) => `${i ? "L" : "M"}${x(step).toFixed(1)} ${y(value).toFixed(1)}`).join("");
}

function label(number, x, y, anchor) {
  return svg("text", { x, y, "text-anchor": anchor }, number.toLocaleString());
}

function lastOf({ name, kind, points }) {
  return { name, kind, value: points.at(-1)[1] };
}

/** Names at the right end, pushed apart from the top down. */
function names(named, x, y) {
  let last = -Infinity;
  return named.sort((a, b) => b.value - a.value).map(({ name, kind, value }) => {
    last = Math.max(y(value) + 4, last + NAME_GAP);
    return svg("text", { x, y: last, class: `name ${kind}` }, `${name} ${value.toFixed(2)}`);
  });
}

/** About `count` round numbers from 0 to the top. */
function ticks(top, count) {
  const raw = top / count;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= raw);
  return Array.from({ length: Math.floor(top / step) + 1 }, (_, i) => Number((i * step).toPrecision(6)));
}

function svg(tag, attributes, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}
