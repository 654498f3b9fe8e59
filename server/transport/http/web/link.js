// The drawings and the view as the fragment of an address, so that they can be sent.
//
// #1.<selected>.<panel>.<interventions>.<images>: version of the form, index of the image, id of the
// section, base64url of UTF-8 JSON, base64url of DEFLATE of all pixels.

import { deflate, inflate } from "./compression.js";
import { formatShape } from "./numbers.js";
import { fromBase64, toBase64 } from "./tensors.js";

const VERSION = "1";
const MAX_INTERVENTIONS = 64;
const CHANGES = ["zero", "set", "add", "scale", "clamp", "fromImage"];

/**
 * @param {{images: Uint8Array[], selected: number, panel: string, interventions: object[]}} state
 * @returns {Promise<string>} the fragment, with its #
 */
export async function writeFragment({ images, selected, panel, interventions }) {
  const pixels = new Uint8Array(images.reduce((sum, image) => sum + image.length, 0));
  images.reduce((offset, image) => {
    pixels.set(image, offset);
    return offset + image.length;
  }, 0);
  const changes = new TextEncoder().encode(JSON.stringify(interventions));
  return `#${[VERSION, selected, panel, toUrl(changes), toUrl(await deflate(pixels))].join(".")}`;
}

/**
 * @param {string} fragment with its #
 * @param {object} model GetModel
 * @param {number} limit of images
 * @returns {Promise<object|null>} what writeFragment took; null for a fragment that is no link,
 *   such as the id of a section
 * @throws {Error} if it is one, and cannot be read
 */
export async function readFragment(fragment, model, limit) {
  if (!fragment.startsWith(`#${VERSION}.`)) return null;
  const [, selected, panel, changes, pixels, ...rest] = fragment.slice(1).split(".");
  if (!pixels || rest.length) throw new Error("parts are missing");
  const images = await readImages(fromUrl(pixels), model.input.shape, limit);
  const index = Number(selected);
  if (!/^\d+$/.test(selected) || index >= images.length) throw new Error("there is no such image");
  const interventions = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(fromUrl(changes)));
  checkInterventions(interventions, model);
  return { images, selected: index, panel, interventions };
}

async function readImages(bytes, shape, limit) {
  const size = shape[0] * shape[1];
  const pixels = await inflate(bytes, limit * size);
  if (!pixels.length || pixels.length % size) throw new Error("the images have another size");
  return Array.from({ length: pixels.length / size }, (_, i) => pixels.slice(i * size, (i + 1) * size));
}

function checkInterventions(interventions, model) {
  const stages = model.stages.slice(0, -1).map((stage) => stage.name);
  const isKnown = (change) => stages.includes(change?.stage)
    && Object.keys(change).every((key) => ["stage", "units", "images", ...CHANGES].includes(key));
  if (!Array.isArray(interventions) || interventions.length > MAX_INTERVENTIONS || !interventions.every(isKnown)) {
    throw new Error("its changes do not fit the model");
  }
}

/**
 * Restore what the address holds, and let the button copy a link.
 * @param {HTMLButtonElement} button
 * @param {object} app
 */
export async function startLinks(button, app) {
  const { store, sheets, notices, show } = app;

  async function restore() {
    try {
      const state = await readFragment(location.hash, store.get().model, sheets.limit);
      if (!state) return false;
      sheets.restore(state.images, state.selected);
      store.set({ interventions: state.interventions });
      if (document.getElementById(state.panel)) show(state.panel);
      return true;
    } catch {
      notices.show("link", "The link is damaged or from another model, so it was not opened.", { dismissable: true });
      return false;
    }
  }

  button.addEventListener("click", async () => {
    const url = new URL(await writeFragment(store.get()), location.href).href;
    history.replaceState(null, "", url);
    const copied = await copy(url);
    notices.show("link", copied ? `The link is copied. It holds your drawings as ${formatShape(store.get().model.input.shape)} pixels, and what you changed.` : "The link is in the address bar.", { seconds: 5 });
  });
  addEventListener("hashchange", restore);
  return restore();
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false; // not allowed, or a page without TLS
  }
}

function toUrl(bytes) {
  return toBase64(bytes).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

function fromUrl(text) {
  const plain = text.replaceAll("-", "+").replaceAll("_", "/");
  return fromBase64(plain.padEnd(Math.ceil(plain.length / 4) * 4, "="));
}
