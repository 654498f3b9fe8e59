// Pictures of any kind brought to the form of the training images, as the Python client does it, to the bit:
// light ink on a dark background, the ink's box scaled to 20 pixels along its longer side, its centre of
// mass in the middle of 28x28.

import { MIN_CONTRAST, MIN_INK, NO_INK, croppedPlane, findInk } from "./ink.js";
import { borderOf } from "./paper.js";
import { resampled } from "./resampling.js";
import { largest, median, rounded, sum } from "./statistics.js";
import { toBox } from "./strokes.js";
import { opaque } from "./transparency.js";

const f32 = Math.fround;
const SIDE = 28;
const BOX_SIDE = 20; // pixels: the longer side of the ink
const MAX_PIXELS = 1024 * 1024; // of a picture of bytes; a larger one is reduced first
const [MIN_USUAL_WIDTH, MAX_USUAL_WIDTH] = [0.8, 6]; // of strokes; outside of it a change is worth a warning

/**
 * Brings a picture to MNIST's form.
 * @param {Uint8Array|Uint8ClampedArray|Float32Array|number[]} pixels [height * width * channels], channels
 *   last: bytes, or else numbers in 0..1
 * @param {number} width pixels
 * @param {number} height pixels
 * @param {number} channels 1 (gray), 3 (RGB), or of bytes 4 (RGB and alpha, not premultiplied)
 * @returns {{pixels: Uint8Array, warnings: string[], steps: object}} `pixels`: 784 of 28 rows; `warnings`:
 *   what made the picture hard to read. `steps`: `picture` {width, height}, as large as it was searched;
 *   `box` {left, top, width, height} of the ink within it; `ink` and, scaled to 20 pixels, `scaled`, each
 *   {values: Float32Array in 0..1, width, height}; `position` {left, top} of `scaled` in the 28x28;
 *   `isUnchanged`: the picture had MNIST's form already
 * @throws {Error} there is no ink
 */
export function prepare(pixels, width, height, channels) {
  const picture = pictureOf(pixels, width, height, channels);
  const size = { width: picture.width, height: picture.height };
  const unchanged = inMnistForm(picture);
  if (unchanged) {
    return { ...unchanged, warnings: [], steps: { ...unchanged.steps, picture: size, isUnchanged: true } };
  }
  const { ink, box, warnings } = findInk(picture);
  const [scaled, strokes] = toBox(ink);
  if (strokes < MIN_USUAL_WIDTH || strokes > MAX_USUAL_WIDTH) {
    const kind = strokes < MIN_USUAL_WIDTH ? "thin" : "thick";
    warnings.push(`the strokes are ${kind} and were changed to MNIST's width`);
  }
  const centred = inTheMiddle(scaled);
  const steps = { picture: size, box, ink, scaled, position: centred.position, isUnchanged: false };
  return { pixels: centred.pixels, warnings, steps };
}

function pictureOf(pixels, width, height, channels) {
  const isBytes = pixels instanceof Uint8Array || pixels instanceof Uint8ClampedArray;
  if (![1, 3].includes(channels) && !(isBytes && channels === 4)) {
    throw new RangeError(`expected 1 or 3 channels, or 4 of bytes, got ${channels}`);
  }
  if (!(width > 0 && height > 0 && pixels.length === width * height * channels)) {
    throw new RangeError(`expected ${width} x ${height} x ${channels} values, got ${pixels.length}`);
  }
  if (!isBytes) {
    return { planes: separated(Float32Array.from(pixels), channels), width, height };
  }
  const planes = separated(new Uint8Array(pixels.buffer, pixels.byteOffset, pixels.length), channels);
  return reducedToFloats(channels === 4 ? opaque(planes, width, height) : planes, width, height);
}

/** Returns a plane of each channel. */
function separated(pixels, channels) {
  return Array.from({ length: channels }, (_, channel) => {
    const plane = new pixels.constructor(pixels.length / channels);
    for (let at = 0; at < plane.length; at++) {
      plane[at] = pixels[at * channels + channel];
    }
    return plane;
  });
}

/** Returns planes of bytes as a picture in 0..1 of at most a megapixel. */
function reducedToFloats(planes, width, height) {
  const scale = Math.sqrt(MAX_PIXELS / (width * height));
  const [wide, high] = scale < 1 ? [width, height].map((side) => Math.max(1, rounded(side * scale))) : [width, height];
  const floats = planes.map((plane) =>
    Float32Array.from(resampled(plane, width, height, wide, high), (level) => level / 255),
  );
  return { planes: floats, width: wide, height: high };
}

/** Returns the ink of a picture that has MNIST's form already, to the bit, or null. */
function inMnistForm({ planes, width, height }) {
  if (width !== SIDE || height !== SIDE) {
    return null;
  }
  const values = new Float32Array(SIDE * SIDE);
  planes.forEach((plane) => {
    const paper = median(borderOf(plane, SIDE, SIDE));
    plane.forEach((value, at) => {
      values[at] = Math.max(values[at], Math.abs(f32(value - paper)));
    });
  });
  const strongest = largest(values);
  if (!(strongest >= f32(MIN_CONTRAST)) || values.some(Number.isNaN)) {
    throw new Error(NO_INK);
  }
  const threshold = f32(MIN_INK * strongest);
  let [top, left, bottom, right] = [SIDE, SIDE, 0, 0];
  values.forEach((value, at) => {
    if (value > threshold) {
      const [row, column] = [Math.floor(at / SIDE), at % SIDE];
      [top, left] = [Math.min(top, row), Math.min(left, column)];
      [bottom, right] = [Math.max(bottom, row + 1), Math.max(right, column + 1)];
    }
  });
  const size = { width: right - left, height: bottom - top };
  const longest = Math.max(size.width, size.height);
  const middle = (SIDE - 1) / 2;
  const isCentred = centreOfMass({ values, width, height }).every((centre) => Math.abs(centre - middle) <= 1.5);
  if (longest < BOX_SIDE - 3 || longest > BOX_SIDE || !isCentred) {
    return null;
  }
  const ink = { values: croppedPlane(values, SIDE, top, left, bottom, right), ...size };
  const steps = { box: { left, top, ...size }, ink, scaled: ink, position: { left, top } };
  return { pixels: Uint8Array.from(values, (value) => rounded(f32(value * 255))), steps };
}

/** Returns the ink in a field of 28x28 with its centre of mass in the middle. */
function inTheMiddle(ink) {
  const { values, width, height } = ink;
  const [row, column] = centreOfMass(ink);
  const start = (centre, side) => Math.min(Math.max(rounded((SIDE - 1) / 2 - centre), 0), SIDE - side);
  const [top, left] = [start(row, height), start(column, width)];
  const pixels = new Uint8Array(SIDE * SIDE);
  values.forEach((value, at) => {
    const to = (top + Math.floor(at / width)) * SIDE + left + (at % width);
    pixels[to] = rounded(Math.min(Math.max(value, 0), 1) * 255);
  });
  return { pixels, position: { left, top } };
}

/** Returns row and column of the centre of mass, in pixels. */
function centreOfMass({ values, width, height }) {
  const rows = Float32Array.from({ length: height }, (_, row) => sum(values, row * width, width));
  const columns = new Float32Array(width);
  if (width === 1) {
    columns[0] = sum(values); // added in NumPy's order for one column
  } else {
    values.forEach((value, at) => {
      columns[at % width] += value;
    });
  }
  const total = sum(values);
  return [rows, columns].map((sums) => sums.reduce((found, each, at) => found + each * at, 0) / total);
}
