// Creates elements. All text is set as text, never as HTML, because names and messages come from other people.

const SVG = "http://www.w3.org/2000/svg";

/**
 * Returns a new element.
 * @param {string} tag The tag, with classes: "div.card.wide".
 * @param {Object} [properties] Properties; those named on… are listeners, and data-… and aria-… are attributes.
 * @param {...(Node|string|number|null|false|Array)} children
 */
export function h(tag, properties, ...children) {
  const [name, ...classes] = tag.split(".");
  const element = document.createElement(name);
  if (classes.length) element.className = classes.join(" ");
  for (const [key, value] of Object.entries(properties ?? {})) {
    if (value === undefined || value === null) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (key in element && !key.includes("-")) element[key] = value;
    else element.setAttribute(key, value);
  }
  append(element, children);
  return element;
}

/** Returns a new SVG element. */
export function svg(tag, attributes, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [key, value] of Object.entries(attributes ?? {})) element.setAttribute(key, value);
  append(element, children);
  return element;
}

/** Replaces the children of an element. */
export function fill(element, ...children) {
  element.replaceChildren();
  append(element, children);
  return element;
}

/** Sets the text of an element, if it differs. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function append(element, children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : String(child));
  }
}

const ICONS = {
  pause: "M6 4v8M10 4v8",
  resume: "M5 3.5v9l7-4.5z",
  cancel: "M4.5 4.5l7 7M11.5 4.5l-7 7",
  delete: "M3 4.5h10M6.5 4.5v-1.5h3v1.5M4.5 4.5l.5 8.5h6l.5-8.5",
  clone: "M5.5 5.5v-3h8v8h-3M2.5 5.5h8v8h-8z",
  download: "M8 2.5v7.5M4.8 7L8 10.2 11.2 7M3 13h10",
  back: "M9.5 3.5L5 8l4.5 4.5",
  search: "M7 12a5 5 0 1 0 0-10 5 5 0 0 0 0 10zM10.8 10.8L14 14",
  theme: "M8 2a6 6 0 1 0 0 12zM8 2a6 6 0 0 1 0 12",
  close: "M4 4l8 8M12 4l-8 8",
  empty: "M2.5 13.5v-11M2.5 13.5h11M4.5 5c2 5 5 6 8.5 6.3",
};

/** Returns an icon. */
export function icon(name) {
  const path = svg("path", { d: ICONS[name] });
  return svg("svg", { class: "icon", viewBox: "0 0 16 16", "aria-hidden": "true" }, path);
}
