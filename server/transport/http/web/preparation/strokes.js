// The width of strokes: brought into the range of MNIST's (strokes.py).

import { pooled } from "./grids.js";
import { resampled } from "./resampling.js";
import { rounded, sum } from "./statistics.js";

const f32 = Math.fround;
const BOX_SIDE = 20;
const WORK_SIDE = 160;
const [MIN_WIDTH, TARGET_WIDTH, MAX_WIDTH] = [1.35, 3.2, 4.8];

/** Returns the mean width of strokes in pixels: twice their area over the length of their outline. */
export function strokeWidth(ink) {
  const { values, width: wide } = padded(ink, 1);
  const lengths = new Float32Array((ink.width + 1) * (ink.height + 1));
  for (let to = 0, at = 0; to < lengths.length; at++) {
    for (const end = at + wide - 1; at < end; at++) {
      const down = f32(values[at + wide] - values[at]);
      const right = f32(values[at + 1] - values[at]);
      lengths[to++] = Math.sqrt(down * down + right * right);
    }
  }
  return (2 * sum(ink.values)) / Math.max(sum(lengths), 1e-9);
}

/** Returns ink with a longer side of 20 pixels, and the width that its strokes had in pixels of that. */
export function toBox(ink) {
  const strokes = strokeWidth(ink);
  const found = (strokes * BOX_SIDE) / longest(ink);
  if (found >= MIN_WIDTH && found <= MAX_WIDTH) return [resized(ink, BOX_SIDE), found];
  const share = (found < MIN_WIDTH ? TARGET_WIDTH : MAX_WIDTH) / BOX_SIDE;
  const factor = Math.floor(longest(ink) / WORK_SIDE);
  const work = resized(factor > 1 && strokes < 2 * factor ? pooled(ink, factor) : ink, WORK_SIDE);
  const margin = (share * longest(work) - strokeWidth(work)) / (1 - share) / 2;
  return [resized(thickened(work, margin), BOX_SIDE), found];
}

const longest = ({ width, height }) => Math.max(width, height);

/** Returns the ink wider by pixels on every side, or narrower below 0. */
function thickened(ink, pixels) {
  const size = Math.abs(pixels);
  let work = padded(ink, pixels > 0 ? Math.ceil(size) : 1);
  for (let step = 0; step < size; step++) {
    const following = neighbours(work, pixels > 0 ? Math.max : Math.min, step % 2 === 1);
    const share = f32(size - step);
    for (let at = 0; at < following.length && size - step < 1; at++) {
      const before = work.values[at];
      following[at] = before + f32(share * f32(following[at] - before));
    }
    work = { ...work, values: following };
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
  const { values, width: wide } = padded(ink, 1);
  const columns = values.map((value, at) => choose(value, values[at - wide] ?? 0, values[at + wide] ?? 0));
  const sides = hasCorners ? columns : values;
  const result = new Float32Array(ink.values.length);
  for (let to = 0, at = wide + 1; to < result.length; to++, at += to % ink.width ? 1 : 3) {
    result[to] = choose(columns[at], sides[at - 1], sides[at + 1]);
  }
  return result;
}

function resized(ink, side) {
  const scale = side / longest(ink);
  const [width, height] = [ink.width, ink.height].map((each) => Math.max(1, rounded(each * scale)));
  return { values: resampled(ink.values, ink.width, ink.height, width, height, scale >= 1), width, height };
}
