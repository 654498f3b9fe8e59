// Pictures of any kind brought to the form of the training images, equal to the Python client's in every pixel:
// light ink on a dark background, its box scaled to 20 pixels along its longer side, its centre of mass in the
// middle of 28x28. The functions and constants of preparation/ have the names that they have in
// client/forward_client/pictures, where it says why.

import { boxOf, sizeOf } from "./preparation/grids.js";
import { MIN_CONTRAST, MIN_INK, NO_INK, findInk } from "./preparation/ink.js";
import { f32, largest, median, rounded, sum } from "./preparation/numbers.js";
import { borderOf, farthest } from "./preparation/paper.js";
import { quantised, resampled, unit } from "./preparation/pillow.js";
import { toBox } from "./preparation/strokes.js";
import { opaque } from "./preparation/transparency.js";

const SIDE = 28;
const BOX_SIDE = 20;
const MAX_PIXELS = 1024 * 1024;
const [LEAST_USUAL, MOST_USUAL] = [0.8, 6]; // widths of strokes

/**
 * @param {ArrayLike<number>} pixels [height, width, channels]: bytes in a Uint8Array or Uint8ClampedArray, or
 *   numbers in 0..1 in anything else
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
  if (unchanged) return { pixels: unchanged, warnings: [], steps: [step("centred", SIDE, unchanged)] };
  const { ink, left, top, warnings, pixels: whole } = findInk(picture);
  const [scaled, strokes] = toBox(ink);
  if (strokes < LEAST_USUAL || strokes > MOST_USUAL) {
    const kind = strokes < LEAST_USUAL ? "thin" : "thick";
    warnings.push(`the strokes are ${kind} and were changed to MNIST's width`);
  }
  const centred = inTheMiddle(scaled);
  const steps = [
    { ...step("picture", picture.w, whole), box: { left, top, width: ink.w, height: ink.h } },
    step("box", ink.w, quantised(ink.values)),
    step("scaled", scaled.w, quantised(scaled.values)),
    step("centred", SIDE, centred),
  ];
  return { pixels: centred, warnings, steps };
}

const step = (name, width, pixels) => ({ name, width, height: pixels.length / width, pixels });

/** Pixels as a picture of float32 in 0..1; bytes without transparency, and reduced to a megapixel. */
function pictureOf(pixels, w, h, channels) {
  const isBytes = pixels instanceof Uint8Array || pixels instanceof Uint8ClampedArray;
  if (![1, 3].includes(channels) && !(isBytes && channels === 4)) {
    throw new RangeError(`expected 1 or 3 channels, or 4 of bytes, got ${channels}`);
  }
  if (!(w > 0 && h > 0 && pixels.length === w * h * channels)) {
    throw new RangeError(`expected ${w} x ${h} x ${channels} values, got ${pixels.length}`);
  }
  let planes = Array.from({ length: channels }, (_, channel) => {
    const plane = new (isBytes ? Uint8Array : Float32Array)(w * h);
    for (let at = 0; at < plane.length; at++) plane[at] = pixels[at * channels + channel];
    return plane;
  });
  if (!isBytes) return { planes, w, h };
  if (channels === 4) planes = opaque(planes, w, h);
  const [first, ...others] = planes;
  if (others.every((plane) => plane.every((value, at) => value === first[at]))) planes = [first]; // gray
  const scale = Math.min(Math.sqrt(MAX_PIXELS / (w * h)), 1);
  const [newW, newH] = [w, h].map((side) => Math.max(1, rounded(side * scale)));
  return { planes: planes.map((plane) => unit(resampled(plane, w, h, newW, newH))), w: newW, h: newH };
}

/** The ink of a picture that has MNIST's form already, or null. */
function inMnistForm({ planes, w, h }) {
  if (w !== SIDE || h !== SIDE) return null;
  const ink = { values: farthest(planes, planes.map((plane) => median(borderOf(plane, SIDE)))), w, h };
  const strongest = largest(ink.values);
  if (strongest < f32(MIN_CONTRAST) || planes.some((plane) => plane.some(Number.isNaN))) throw new Error(NO_INK);
  const size = sizeOf(boxOf(ink, f32(MIN_INK * strongest)));
  const longest = Math.max(size.w, size.h);
  const isOff = (centre) => Math.abs(centre - (SIDE - 1) / 2) > 1.5;
  return longest < BOX_SIDE - 3 || longest > BOX_SIDE || centreOfMass(ink).some(isOff) ? null : quantised(ink.values);
}

/** Ink in a field of 28x28 with its centre of mass in the middle. */
function inTheMiddle(ink) {
  const [row, column] = centreOfMass(ink);
  const start = (centre, side) => Math.min(Math.max(rounded((SIDE - 1) / 2 - centre), 0), SIDE - side);
  const from = start(row, ink.h) * SIDE + start(column, ink.w);
  const pixels = new Uint8Array(SIDE * SIDE);
  ink.values.forEach((value, at) => {
    const to = from + Math.floor(at / ink.w) * SIDE + (at % ink.w);
    pixels[to] = rounded(Math.min(Math.max(value, 0), 1) * 255); // in double precision, as the client
  });
  return pixels;
}

/** Row and column of the centre of mass, in pixels. */
function centreOfMass({ values, w, h }) {
  const rows = Float32Array.from({ length: h }, (_, row) => sum(values, row * w, w));
  const columns = new Float32Array(w);
  values.forEach((value, at) => (columns[at % w] += value));
  const total = sum(values);
  if (w === 1) columns[0] = total; // NumPy adds a single column in pairs
  return [rows, columns].map((sums) => sums.reduce((found, each, at) => found + each * at, 0) / total);
}
