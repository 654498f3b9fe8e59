// The width of strokes: brought into the range of MNIST's.

import { pooled } from "./grids.js";
import { f32, rounded, sum } from "./numbers.js";
import { resampled } from "./pillow.js";

const BOX_SIDE = 20;
const WORK_SIDE = 160;
const [MIN_WIDTH, TARGET_WIDTH, MAX_WIDTH] = [1.35, 3.2, 4.8];

/** The mean width of strokes in pixels: twice their area over the length of their outline. */
export function strokeWidth(ink) {
  const { values, w } = padded(ink, 1);
  const lengths = new Float32Array((ink.w + 1) * (ink.h + 1));
  for (let to = 0, at = 0; to < lengths.length; at++) {
    for (const end = at + w - 1; at < end; at++) {
      const down = f32(values[at + w] - values[at]);
      const right = f32(values[at + 1] - values[at]);
      lengths[to++] = Math.sqrt(down * down + right * right);
    }
  }
  return (2 * sum(ink.values)) / Math.max(sum(lengths), 1e-9);
}

/** Ink with a longer side of 20 pixels, and the width that its strokes had in pixels of that. */
export function toBox(ink) {
  const strokes = strokeWidth(ink);
  const longest = Math.max(ink.w, ink.h);
  const found = (strokes * BOX_SIDE) / longest;
  if (found >= MIN_WIDTH && found <= MAX_WIDTH) return [resized(ink, BOX_SIDE), found];
  const share = (found < MIN_WIDTH ? TARGET_WIDTH : MAX_WIDTH) / BOX_SIDE;
  const factor = Math.floor(longest / WORK_SIDE);
  const work = resized(factor > 1 && strokes < 2 * factor ? pooled(ink, factor) : ink, WORK_SIDE);
  const margin = (share * Math.max(work.w, work.h) - strokeWidth(work)) / (1 - share) / 2;
  return [resized(thickened(work, margin), BOX_SIDE), found];
}

/** Ink wider by pixels on every side, or narrower below 0. */
function thickened(ink, pixels) {
  const size = Math.abs(pixels);
  const work = padded(ink, pixels > 0 ? Math.ceil(size) : 1);
  for (let step = 0; step < size; step++) {
    const following = neighbours(work, Math.sign(pixels), step % 2 === 1);
    const share = f32(size - step);
    for (let at = 0; at < following.length && size - step < 1; at++) {
      const before = work.values[at];
      following[at] = before + f32(share * f32(following[at] - before));
    }
    work.values = following;
  }
  return work;
}

function padded({ values, w, h }, margin) {
  const wide = w + 2 * margin;
  const result = new Float32Array(wide * (h + 2 * margin));
  for (let y = 0; y < h; y++) result.set(values.subarray(y * w, (y + 1) * w), (y + margin) * wide + margin);
  return { values: result, w: wide, h: h + 2 * margin };
}

/** The largest, or by sign -1 the least, of each pixel's neighbours; with corners in turn they make octagons. */
function neighbours(ink, sign, hasCorners) {
  const { values, w } = padded(ink, 1);
  const steps = hasCorners ? [1, -1, w - 1, w, w + 1, 1 - w, -w, -1 - w] : [1, -1, w, -w];
  const result = new Float32Array(ink.values.length);
  for (let to = 0, at = w + 1; to < result.length; to++, at += to % ink.w ? 1 : 3) {
    let found = sign * values[at];
    for (const step of steps) found = sign * values[at + step] > found ? sign * values[at + step] : found;
    result[to] = sign * found;
  }
  return result;
}

function resized({ values, w, h }, side) {
  const scale = side / Math.max(w, h);
  const [newW, newH] = [w, h].map((each) => Math.max(1, rounded(each * scale)));
  return { values: resampled(values, w, h, newW, newH, scale >= 1), w: newW, h: newH };
}
