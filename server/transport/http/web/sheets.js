// The drawings of the batch, and the images that they make.

import { prepare } from "./preparation.js";
import { createRaster, RASTER_SIDE } from "./strokes.js";

/**
 * A drawing: `strokes` (each x0, y0, x1, y1, ... in units of the pad) or a `picture` ({width,
 * height} and its `image`, RGBA, or `ink`, a byte for each pixel), the image's `pixels`, the `steps` and `warnings` of its preparation, why it
 * `failed` (or null), whether it `isExample`, and `past`, the sheet before the last change.
 */
const EMPTY = { strokes: [], picture: null, steps: [], warnings: [], failed: null, isExample: false, past: null };
const MAX_PAST = 100;
const MNIST_SHAPE = [28, 28];

/**
 * @param {object} store gets `sheets`, `images`, `selected`
 * @param {number[]} shape of an image, [height, width]
 * @param {number} limit of images in a batch
 * @returns {object} what changes the drawings
 */
export function createSheets(store, shape, limit) {
  const size = shape[0] * shape[1];
  const rasterise = createRaster();

  function put(sheets, selected) {
    store.set({ sheets, images: sheets.map((sheet) => sheet.pixels), selected });
  }

  function current() {
    const { sheets, selected } = store.get();
    return sheets[selected];
  }

  function change(sheet) {
    const { sheets, selected } = store.get();
    put(sheets.with(selected, sheet), selected);
  }

  function blank(past = null) {
    return { ...EMPTY, pixels: new Uint8Array(size), past: shortened(past) };
  }

  function prepared(sheet, bytes, width, height, channels) {
    try {
      return { ...sheet, ...prepareFor(shape, bytes, width, height, channels), failed: null };
    } catch (error) {
      return { ...sheet, pixels: new Uint8Array(size), steps: [], warnings: [], failed: error.message };
    }
  }

  function drawn(strokes, past) {
    const sheet = { ...blank(past), strokes };
    return strokes.length ? prepared(sheet, rasterise(strokes), RASTER_SIDE, RASTER_SIDE, 1) : sheet;
  }

  function untouched(pixels, past = null) {
    const [height, width] = shape;
    const picture = { ink: pixels, width, height };
    return { ...blank(past), picture, pixels, steps: [{ name: "centred", width, height, pixels }] };
  }

  return {
    limit,
    /** Draw a stroke; the same array again, with more points, makes it longer. */
    draw(stroke) {
      const sheet = current();
      if (sheet.strokes.at(-1) === stroke) change(drawn(sheet.strokes, sheet.past));
      else change(drawn(sheet.isExample ? [stroke] : [...sheet.strokes, stroke], sheet));
    },
    undo() {
      if (current().past) change(current().past);
    },
    clear() {
      if (!isBlank(current())) change(blank(current()));
    },
    /** Take a picture, an ImageData. @returns {string|null} why that was not possible */
    usePicture(image) {
      const { data, width, height } = image;
      const sheet = prepared({ ...blank(current()), picture: { image, width, height } }, data, width, height, 4);
      if (!sheet.failed) change(sheet);
      return sheet.failed;
    },
    /** Take an image that has the network's form already. */
    useImage(pixels) {
      change(untouched(pixels, current()));
    },
    add() {
      const { sheets } = store.get();
      if (sheets.length < limit) put([...sheets, blank()], sheets.length);
    },
    remove(index) {
      const { sheets, selected } = store.get();
      if (sheets.length > 1) {
        const rest = sheets.toSpliced(index, 1);
        put(rest, Math.min(selected > index ? selected - 1 : selected, rest.length - 1));
      }
    },
    select(index) {
      store.set({ selected: index });
    },
    /** Show strokes that the first own one replaces. */
    showExample(strokes) {
      put([{ ...drawn(strokes, null), isExample: true }], 0);
    },
    /** Replace the whole batch by images that have the network's form. */
    restore(images, selected) {
      put(images.map((pixels) => untouched(pixels)), selected);
    },
  };
}

/** MNIST's form for a network of MNIST's; for another the whole picture, scaled to its shape. */
function prepareFor(shape, bytes, width, height, channels) {
  if (String(shape) === String(MNIST_SHAPE)) return prepare(bytes, width, height, channels);
  const gray = channels === 1 ? bytes : bytes.filter((_, i) => i % channels === 1);
  const pixels = new Uint8Array(shape[0] * shape[1]);
  for (let i = 0; i < pixels.length; i += 1) {
    const [row, column] = [Math.floor(i / shape[1]), i % shape[1]];
    pixels[i] = meanOf(gray, width, [row, row + 1].map((edge) => Math.floor((edge * height) / shape[0])),
      [column, column + 1].map((edge) => Math.floor((edge * width) / shape[1])));
  }
  return { pixels, warnings: [], steps: [{ name: "centred", width: shape[1], height: shape[0], pixels }] };
}

function meanOf(gray, width, [top, bottom], [left, right]) {
  let sum = 0;
  for (let y = top; y < bottom; y += 1) for (let x = left; x < right; x += 1) sum += gray[y * width + x];
  return Math.round(sum / Math.max(1, (bottom - top) * (right - left)));
}

/** @returns {boolean} whether nothing is drawn */
export function isBlank(sheet) {
  return !sheet.picture && !sheet.strokes.length;
}

/** Forget what lies too far back to be undone. */
function shortened(past) {
  const chain = [];
  for (let sheet = past; sheet && chain.length <= MAX_PAST; sheet = sheet.past) chain.push(sheet);
  return chain.length <= MAX_PAST ? past : chain.slice(0, MAX_PAST).reduceRight((older, sheet) => ({ ...sheet, past: older }), null);
}
