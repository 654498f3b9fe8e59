// Pillow's filters of 8 bits: Gaussian blur (BoxBlur.c) and median (RankFilter.c).

import { rounded } from "./statistics.js";

const f32 = Math.fround;
const PASSES = 3; // of a box, in place of a Gaussian
const ONE = 2 ** 24; // weights of the box are whole multiples of 1 / ONE

/** Returns float32 in 0..1 as levels of 8 bits. */
export function quantised(values) {
  const levels = new Uint8Array(values.length);
  for (let at = 0; at < levels.length; at++) levels[at] = rounded(f32(Math.min(Math.max(values[at], 0), 1) * 255));
  return levels;
}

/** Returns levels of 8 bits as float32 in 0..1. */
export function unit(levels) {
  const values = new Float32Array(levels.length);
  for (let at = 0; at < values.length; at++) values[at] = levels[at] / 255;
  return values;
}

/** Returns levels [height * width] blurred by a Gaussian of a radius. */
export function blurred(levels, width, height, radius) {
  const box = boxOf(radius);
  const result = levels.slice();
  for (let y = 0; y < height; y++) blurLine(result, y * width, 1, width, box);
  for (let x = 0; x < width; x++) blurLine(result, x, width, height, box);
  return result;
}

/** Returns the box whose passes blur as a Gaussian: its whole radius, and the weights of it and its ends. */
function boxOf(radius) {
  const variance = f32((radius * radius) / PASSES);
  const length = f32(Math.sqrt(12 * variance + 1));
  const whole = f32(Math.floor((length - 1) / 2));
  const upper = f32((2 * whole + 1) * f32(whole * (whole + 1) - f32(3 * variance)));
  const part = f32(upper / f32(6 * f32(variance - (whole + 1) * (whole + 1))));
  const size = f32(whole + part);
  const reach = Math.trunc(size);
  const weight = Math.trunc(f32(ONE / f32(f32(size * 2) + 1)));
  return { reach, weight, endWeight: Math.trunc((ONE - (reach * 2 + 1) * weight) / 2) };
}

function blurLine(levels, from, step, length, { reach, weight, endWeight }) {
  const line = new Uint8Array(length);
  const at = (x) => line[Math.min(Math.max(x, 0), length - 1)];
  for (let pass = 0; pass < PASSES; pass++) {
    for (let x = 0; x < length; x++) line[x] = levels[from + x * step];
    let inner = 0;
    for (let x = -reach - 1; x < reach; x++) inner += at(x);
    for (let x = 0; x < length; x++) {
      inner += at(x + reach) - at(x - reach - 1);
      const ends = at(x - reach - 1) + at(x + reach + 1);
      levels[from + x * step] = Math.floor((inner * weight + ends * endWeight + ONE / 2) / ONE);
    }
  }
}

/** Returns the median of a window around each of `width` by `width` levels, the edge repeated outside. */
export function median8(levels, width, side) {
  const window = new Uint8Array(side * side);
  const inside = (at) => Math.min(Math.max(at - (side - 1) / 2, 0), width - 1);
  return levels.map((_, at) => {
    for (let place = 0; place < window.length; place++) {
      const row = inside(Math.floor(at / width) + Math.floor(place / side));
      window[place] = levels[row * width + inside((at % width) + (place % side))];
    }
    return window.sort()[(window.length - 1) / 2];
  });
}
