// Pictures of any kind brought to the form of the training images, equal to the Python client's in every
// pixel: light ink on a dark background, its box scaled to 20 pixels along its longer side, its centre of
// mass in the middle of 28x28. Modules, functions and constants of preparation/ are named as the client's
// (client/forward_client/pictures), which say why.

import { quantised, unit } from "./preparation/filters.js";
import { boxOf } from "./preparation/grids.js";
import { MIN_CONTRAST, MIN_INK, NO_INK, findInk } from "./preparation/ink.js";
import { borderOf, farthest } from "./preparation/paper.js";
import { resampled } from "./preparation/resampling.js";
import { largest, median, rounded, sum } from "./preparation/statistics.js";
import { toBox } from "./preparation/strokes.js";
import { opaque } from "./preparation/transparency.js";

const f32 = Math.fround;
const SIDE = 28;
const BOX_SIDE = 20;
const MAX_PIXELS = 1024 * 1024;
const USUAL_WIDTHS = [0.8, 6];

/**
 * @param {ArrayLike<number>} pixels [height, width, channels]: a Uint8Array or Uint8ClampedArray of bytes, or
 *   anything else of numbers in 0..1
 * @param {number} width
 * @param {number} height
 * @param {number} [channels] 1 (gray), 3 (RGB), or of bytes 4 (RGB and alpha, not premultiplied)
 * @returns {{pixels: Uint8Array, warnings: string[], steps: object[]}} pixels of 28 x 28, ink light.
 *   Steps, in order: {name, width, height, pixels: Uint8Array} with the names "picture" (with
 *   `box`: {left, top, width, height}, where the ink is), "box", "scaled" and "centred"; only
 *   "centred" for a picture that has the form already
 * @throws {Error} if there is no ink
 */
export function prepare(pixels, width, height, channels = 1) {
  const picture = pictureOf(pixels, width, height, channels);
  const unchanged = inMnistForm(picture);
  if (unchanged) return { pixels: unchanged, warnings: [], steps: [stepOf("centred", SIDE, unchanged)] };
  const { whole, ink, box, warnings } = findInk(picture);
  const [scaled, strokes] = toBox(ink);
  if (strokes < USUAL_WIDTHS[0] || strokes > USUAL_WIDTHS[1]) {
    const kind = strokes < USUAL_WIDTHS[0] ? "thin" : "thick";
    warnings.push(`the strokes are ${kind} and were changed to MNIST's width`);
  }
  const centred = inTheMiddle(scaled);
  const steps = [
    { ...stepOf("picture", whole.width, whole.pixels), box },
    stepOf("box", ink.width, quantised(ink.values)),
    stepOf("scaled", scaled.width, quantised(scaled.values)),
    stepOf("centred", SIDE, centred),
  ];
  return { pixels: centred, warnings, steps };
}

function stepOf(name, width, pixels) {
  return { name, width, height: pixels.length / width, pixels };
}

/** Returns pixels as a picture, planes of float32 in 0..1, of bytes without transparency and not too large. */
function pictureOf(pixels, width, height, channels) {
  const isBytes = pixels instanceof Uint8Array || pixels instanceof Uint8ClampedArray;
  if (![1, 3].includes(channels) && !(isBytes && channels === 4)) {
    throw new RangeError(`expected 1 or 3 channels, or 4 of bytes, got ${channels}`);
  }
  if (!(width > 0 && height > 0 && pixels.length === width * height * channels)) {
    throw new RangeError(`expected ${width} x ${height} x ${channels} values, got ${pixels.length}`);
  }
  let planes = Array.from({ length: channels }, (_, channel) => {
    const plane = new (isBytes ? Uint8Array : Float32Array)(width * height);
    for (let at = 0, from = channel; at < plane.length; at++, from += channels) plane[at] = pixels[from];
    return plane;
  });
  if (!isBytes) {
    return { planes, width, height };
  }
  planes = withoutCopies(channels === 4 ? opaque(planes, width, height) : planes);
  const scale = Math.min(Math.sqrt(MAX_PIXELS / (width * height)), 1);
  const [wide, high] = [width, height].map((side) => Math.max(1, rounded(side * scale)));
  return { planes: planes.map((plane) => unit(resampled(plane, width, height, wide, high))), width: wide, height: high };
}

/** Returns the first plane alone where the others are the same: gray, as drawings are. */
function withoutCopies(planes) {
  const [first, ...others] = planes;
  return others.every((plane) => plane.every((value, at) => value === first[at])) ? [first] : planes;
}

/** Returns the ink of a picture that has MNIST's form already, or null. */
function inMnistForm({ planes, width, height }) {
  if (width !== SIDE || height !== SIDE) return null;
  const values = farthest(planes, planes.map((plane) => median(borderOf(plane, SIDE, SIDE))));
  const strongest = largest(values);
  if (strongest < f32(MIN_CONTRAST) || planes.some((plane) => plane.some(Number.isNaN))) throw new Error(NO_INK);
  const [top, left, bottom, right] = boxOf({ values, width, height }, f32(MIN_INK * strongest));
  const longest = Math.max(bottom - top, right - left);
  const isOff = (centre) => Math.abs(centre - (SIDE - 1) / 2) > 1.5;
  const isOther = longest < BOX_SIDE - 3 || longest > BOX_SIDE || centreOfMass({ values, width, height }).some(isOff);
  return isOther ? null : quantised(values);
}

/** Returns ink in a field of 28x28 with its centre of mass in the middle. */
function inTheMiddle(ink) {
  const [row, column] = centreOfMass(ink);
  const start = (centre, side) => Math.min(Math.max(rounded((SIDE - 1) / 2 - centre), 0), SIDE - side);
  const from = start(row, ink.height) * SIDE + start(column, ink.width);
  const pixels = new Uint8Array(SIDE * SIDE);
  ink.values.forEach((value, at) => {
    const to = from + Math.floor(at / ink.width) * SIDE + (at % ink.width);
    pixels[to] = rounded(Math.min(Math.max(value, 0), 1) * 255); // in double precision, as the client
  });
  return pixels;
}

/** Returns row and column of the centre of mass, in pixels. */
function centreOfMass({ values, width, height }) {
  const rows = Float32Array.from({ length: height }, (_, row) => sum(values, row * width, width));
  const columns = new Float32Array(width);
  values.forEach((value, at) => {
    columns[at % width] += value;
  });
  const total = sum(values);
  columns[0] = width === 1 ? total : columns[0]; // NumPy adds one column in another order
  return [rows, columns].map((sums) => sums.reduce((found, each, at) => found + each * at, 0) / total);
}
