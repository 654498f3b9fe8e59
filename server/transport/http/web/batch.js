// The batch: thumbnails of the drawings that are sent together.

import { element } from "./elements.js";
import { drawImage, onColours } from "./pictures.js";

/**
 * @param {HTMLElement} place
 * @param {{store: object, sheets: object}} app
 */
export function mount(place, { store, sheets }) {
  const [, width] = store.get().model.input.shape;
  const count = element("span.hint");
  const list = element("div.thumbnails", { role: "group", "aria-label": "Drawings of the batch" });
  const add = element("button", { type: "button", onclick: () => sheets.add() }, "Add another");
  const remove = element("button", {
    type: "button", onclick: () => sheets.remove(store.get().selected),
  }, "Remove");
  place.append(element("div.batch", {},
    element("div.batch-head", {}, element("h3", {}, "Batch"), count, add, remove), list));
  const shown = [];

  function thumbnail(index) {
    const canvas = element("canvas", { "aria-hidden": "true" });
    const button = element("button.sample", {
      type: "button", "aria-label": `Drawing ${index + 1}`, onclick: () => sheets.select(index),
    }, canvas);
    return { button, canvas, pixels: null };
  }

  function render({ images, selected }) {
    while (shown.length < images.length) {
      shown.push(thumbnail(shown.length));
      list.append(shown.at(-1).button);
    }
    while (shown.length > images.length) shown.pop().button.remove();
    shown.forEach((item, index) => {
      if (item.pixels !== images[index]) drawImage(item.canvas, images[index], width, 255);
      item.pixels = images[index];
      item.button.setAttribute("aria-pressed", String(index === selected));
    });
    count.textContent = `N = ${images.length}, at most ${sheets.limit}`;
    add.disabled = images.length >= sheets.limit;
    remove.disabled = images.length === 1;
  }
  store.subscribe(["images", "selected"], render);
  onColours(() => {
    for (const item of shown) item.pixels = null;
    render(store.get());
  });
}
