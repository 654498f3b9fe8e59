// Real test images to take in the place of a drawing.

import { element } from "./elements.js";
import { drawImage, onColours } from "./pictures.js";
import { readSamples, SAMPLE_SHAPE } from "./samples.js";

/**
 * @param {HTMLElement} place
 * @param {{store: object, sheets: object}} app
 */
export async function mount(place, { store, sheets }) {
  if (String(store.get().model.input.shape) !== String(SAMPLE_SHAPE)) return;
  const list = element("div.tray", { role: "group", "aria-label": "Samples: images of MNIST's test set" });
  place.append(list);
  const samples = await readSamples();
  for (const sample of samples) {
    const canvas = element("canvas", { "aria-hidden": "true" });
    onColours(() => drawImage(canvas, sample.pixels, SAMPLE_SHAPE[1], 255));
    list.append(element("button.sample", {
      type: "button",
      title: `Test image ${sample.index}: a ${sample.label}`,
      "aria-label": `Take test image ${sample.index}, a ${sample.label}`,
      onclick: () => sheets.useImage(sample.pixels),
    }, canvas));
  }
}
