<<<<<<< HEAD
// Strokes of a pen, and the gray picture that they make.

/** Side of the pad in its own units, and of the picture in pixels. */
export const PAD_SIDE = 280;
const PEN_WIDTH = 22;

/**
 * Draw the part of a stroke that begins at a point. Each piece is drawn by itself, so that the
 * pixels do not depend on how many points come at a time.
 * @param {CanvasRenderingContext2D} context in units of the pad
 * @param {number[]} stroke x0, y0, x1, y1, ...
 * @param {number} [from] index of the first point that was not drawn yet
 */
export function drawStroke(context, stroke, from = 0) {
  context.lineWidth = PEN_WIDTH;
  context.lineCap = "round";
  for (let point = from; point < stroke.length / 2; point += 1) {
    const before = Math.max(0, point - 1);
    context.beginPath();
    context.moveTo(stroke[2 * before], stroke[2 * before + 1]);
    context.lineTo(stroke[2 * point], stroke[2 * point + 1]);
    context.stroke();
  }
}

/**
 * @returns {(strokes: number[][]) => Uint8Array} what makes strokes a picture, light ink on dark,
 *   [PAD_SIDE, PAD_SIDE]; strokes that follow on those of the last call are only added
 */
export function createRaster() {
  const canvas = document.createElement("canvas");
  canvas.width = PAD_SIDE;
  canvas.height = PAD_SIDE;
  const context = canvas.getContext("2d", { alpha: false, willReadFrequently: true });
  context.strokeStyle = "white";
  let drawn = [];

  function follows(strokes) {
    return drawn.length <= strokes.length && drawn.every(({ stroke, points }, i) => (
      stroke === strokes[i] && (points === stroke.length / 2 || i === drawn.length - 1)
    ));
  }

  return (strokes) => {
    if (!follows(strokes)) {
      context.fillRect(0, 0, PAD_SIDE, PAD_SIDE);
      drawn = [];
    }
    strokes.forEach((stroke, i) => {
      drawStroke(context, stroke, drawn[i]?.points ?? 0);
    });
    drawn = strokes.map((stroke) => ({ stroke, points: stroke.length / 2 }));
    const { data } = context.getImageData(0, 0, PAD_SIDE, PAD_SIDE);
    const gray = new Uint8Array(PAD_SIDE * PAD_SIDE);
    for (let i = 0; i < gray.length; i += 1) gray[i] = data[4 * i];
    return gray;
  };
=======
// The width of strokes: brought into the range of MNIST's.
// Ink is {values: Float32Array [height * width] in 0..1, width, height}.

import { resampled } from "./resampling.js";
import { rounded, sum } from "./statistics.js";

const f32 = Math.fround;
const BOX_SIDE = 20; // pixels: the longer side of the ink in MNIST's form
const WORK_SCALE = 8; // pixels of the working picture for each of MNIST's
const MIN_WIDTH = 1.35; // of strokes, in MNIST's pixels
const TARGET_WIDTH = 3.2; // of strokes that are thinner
const MAX_WIDTH = 4.8;

/** Returns the mean width of strokes in pixels: twice their area over the length of their outline. */
export function strokeWidth({ values, width, height }) {
  const lengths = new Float32Array((width + 1) * (height + 1));
  for (let y = 0; y <= height; y++) {
    for (let x = 0; x <= width; x++) {
      const isInside = x > 0 && y > 0;
      const here = isInside ? values[(y - 1) * width + x - 1] : 0;
      const below = x > 0 && y < height ? values[y * width + x - 1] : 0;
      const right = y > 0 && x < width ? values[(y - 1) * width + x] : 0;
      const [down, across] = [f32(below - here), f32(right - here)];
      lengths[y * (width + 1) + x] = Math.sqrt(down * down + across * across);
    }
  }
  return (2 * sum(values)) / Math.max(sum(lengths), 1e-9);
}

/**
 * Returns ink with a longer side of 20 pixels, strokes out of MNIST's range brought into it, and the
 * width that they had in pixels of the result.
 */
export function toBox(ink) {
  const width = strokeWidth(ink);
  const found = (width * BOX_SIDE) / longerSide(ink);
  if (found >= MIN_WIDTH && found <= MAX_WIDTH) {
    return [resized(ink, BOX_SIDE), found];
  }
  const share = (found < MIN_WIDTH ? TARGET_WIDTH : MAX_WIDTH) / BOX_SIDE;
  const work = reduced(ink, width);
  // With `margin` pixels more on every side: (width + 2 margin) / (longest + 2 margin) = share.
  const margin = (share * longerSide(work) - strokeWidth(work)) / (1 - share) / 2;
  return [resized(thickened(work, margin), BOX_SIDE), found];
}

function longerSide({ width, height }) {
  return Math.max(width, height);
}

/** Returns the ink wider by pixels on every side, or narrower below 0. */
function thickened(ink, pixels) {
  const whole = Math.ceil(Math.abs(pixels));
  const choose = pixels > 0 ? Math.max : Math.min;
  let work = padded(ink, pixels > 0 ? whole : 1);
  for (let step = 0; step < whole; step++) {
    const following = neighbours(work, choose, step % 2 === 1);
    const share = Math.min(Math.abs(pixels) - step, 1);
    const mixed = following.map((value, at) => {
      const before = work.values[at];
      return share === 1 ? value : before + f32(f32(share) * f32(value - before));
    });
    work = { ...work, values: mixed };
  }
  return work;
}

function padded({ values, width, height }, margin) {
  const wide = width + 2 * margin;
  const result = new Float32Array(wide * (height + 2 * margin));
  for (let y = 0; y < height; y++) {
    result.set(values.subarray(y * width, (y + 1) * width), (y + margin) * wide + margin);
  }
  return { values: result, width: wide, height: height + 2 * margin };
}

/** Returns the largest, or least, of each pixel's neighbours; with corners in turn they make octagons. */
function neighbours(ink, choose, hasCorners) {
  const { width, height } = ink;
  const { values, width: wide } = padded(ink, 1);
  const result = new Float32Array(width * height);
  const column = (at) => choose(values[at - wide], values[at], values[at + wide]);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const at = (y + 1) * wide + x + 1;
      result[y * width + x] = hasCorners
        ? choose(column(at - 1), column(at), column(at + 1))
        : choose(column(at), values[at - 1], values[at + 1]);
    }
  }
  return result;
}

/** Returns the ink with a longer side of 160 pixels, lines still as dark as they were. */
function reduced(ink, strokes) {
  const target = BOX_SIDE * WORK_SCALE;
  const factor = Math.floor(longerSide(ink) / target);
  // A mean would make thin lines pale.
  return resized(factor > 1 && strokes < 2 * factor ? maxPooled(ink, factor) : ink, target);
}

function maxPooled({ values, width, height }, factor) {
  const [wide, high] = [Math.ceil(width / factor), Math.ceil(height / factor)];
  const result = new Float32Array(wide * high);
  for (let at = 0; at < values.length; at++) {
    const to = Math.floor(Math.floor(at / width) / factor) * wide + Math.floor((at % width) / factor);
    result[to] = Math.max(result[to], values[at]);
  }
  return { values: result, width: wide, height: high };
}

function resized(ink, longest) {
  const scale = longest / longerSide(ink);
  const [width, height] = [ink.width, ink.height].map((side) => Math.max(1, rounded(side * scale)));
  return { values: resampled(ink.values, ink.width, ink.height, width, height, scale >= 1), width, height };
>>>>>>> 3327b7f (The page prepares pictures as the client does, pixel for pixel: first state, exact but slow)
}
