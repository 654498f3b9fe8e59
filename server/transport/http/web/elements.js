// DOM elements in one call.

/**
 * @param {string} name of the element; with classes, for example "p.hint"
 * @param {object} [properties] DOM properties; `aria` and `data` are objects, a name with "on" is
 *   an event's listener; "role" and names with "-" are attributes
 * @param {...(Node|string|null)} children
 * @returns {HTMLElement}
 */
export function element(name, properties = {}, ...children) {
  const [tag, ...classes] = name.split(".");
  const made = document.createElement(tag);
  if (classes.length) made.className = classes.join(" ");
  for (const [key, value] of Object.entries(properties)) {
    if (key === "aria") for (const [what, text] of Object.entries(value)) made.setAttribute(`aria-${what}`, text);
    else if (key === "data") Object.assign(made.dataset, value);
    else if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (key === "role" || key.includes("-")) made.setAttribute(key, value);
    else made[key] = value;
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}
