/** Elements, made by calls: text of others is only ever text. */

/** A new element with attributes (`onclick` and the like are listeners) and children. */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (typeof value === "boolean") element.toggleAttribute(name, value);
    else element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

/** @returns {HTMLElement} the element with this id */
export function byId(id) {
  return document.getElementById(id);
}

/** Call a function once, this long after the last of a row of calls; `now` does not wait. */
export function later(milliseconds, run) {
  let timer = 0;
  const soon = () => {
    clearTimeout(timer);
    timer = setTimeout(soon.now, milliseconds);
  };
  soon.now = () => {
    clearTimeout(timer);
    timer = 0;
    return run();
  };
  soon.waits = () => timer !== 0;
  return soon;
}
