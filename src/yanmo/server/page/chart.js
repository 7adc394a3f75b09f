/** A curve of losses, drawn as SVG by calls. */

const WIDEST = 760;
const HEIGHT = 340;
const [LEFT, RIGHT, TOP, BOTTOM] = [44, 124, 16, 34];
const MARGINS = 40; // of the page, left and right together
const TICK_GAP = 110;
const NAME_GAP = 15; // between names of lines, so that none lies over another

/**
 * @param {{name: string, kind: string, points: [number, number][]}[]} curves points are (step, value)
 * @param {{name: string, value: number}[]} lines level ones, to compare with
 */
export function chart(curves, lines) {
  const width = Math.min(WIDEST, innerWidth - MARGINS); // letters are as large on a phone
  const end = width - RIGHT;
  const points = curves.flatMap((curve) => curve.points);
  const steps = Math.max(1, ...points.map(([step]) => step));
  const top = 1.05 * Math.max(1, ...points.map(([, value]) => value), ...lines.map((line) => line.value));
  const x = (step) => LEFT + ((end - LEFT) * step) / steps;
  const y = (value) => HEIGHT - BOTTOM - ((HEIGHT - TOP - BOTTOM) * value) / top;
  const named = [...lines.map(({ name, value }) => ({ name, kind: "level", value })), ...curves.filter((c) => c.points.length)
    .map(({ name, kind, points: own }) => ({ name, kind, value: own.at(-1)[1] }))];
  return svg("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, class: "chart", role: "img" },
    ...ticks(top, 5).map((value) => tick(LEFT - 8, y(value) + 4, "end", value, svg("path", { class: "grid", d: `M${LEFT} ${y(value)}H${end}` }))),
    ...ticks(steps, (end - LEFT) / TICK_GAP).map((step) => tick(x(step), HEIGHT - BOTTOM + 20, "middle", step)),
    ...lines.map(({ value }) => svg("path", { class: "level", d: `M${LEFT} ${y(value)}H${end}` })),
    ...curves.map(({ kind, points: own }) => svg("path", { class: `curve ${kind}`, d: path(own, x, y) })),
    ...curves.filter(({ kind }) => kind === "validation").flatMap(({ points: own }) => own.map(([step, value]) =>
      svg("circle", { class: "dot", cx: x(step), cy: y(value), r: 3 }))),
    ...names(named, end + 8, y));
}

function path(points, x, y) {
  return points.map(([step, value], i) => `${i ? "L" : "M"}${x(step).toFixed(1)} ${y(value).toFixed(1)}`).join("");
}

function tick(x, y, anchor, value, line = null) {
  return svg("g", {}, ...(line ? [line] : []), svg("text", { x, y, "text-anchor": anchor }, value.toLocaleString()));
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
