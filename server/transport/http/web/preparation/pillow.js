// What Pillow does with pixels, to the bit: resampling, Gaussian blur, median.

import { f32, rounded } from "./numbers.js";

const BOX = { support: 0.5, weight: (x) => (x > -0.5 && x <= 0.5 ? 1 : 0) };
const BILINEAR = { support: 1, weight: (x) => Math.max(1 - Math.abs(x), 0) };
const STEPS = 2 ** 22; // of weights for bytes
const PASSES = 3; // of a box, in place of a Gaussian
const ONE = 2 ** 24; // steps of the box's weights

/** Where the old pixels of each new one start, and their weights. */
function weightsOf({ support, weight }, size, newSize, isBytes) {
  const scale = size / newSize;
  const stretch = Math.max(scale, 1);
  const reach = support * stretch;
  return Array.from({ length: newSize }, (_, at) => {
    const center = (at + 0.5) * scale;
    const start = Math.max(Math.trunc(center - reach + 0.5), 0);
    const count = Math.min(Math.trunc(center + reach + 0.5), size) - start;
    const weights = Float64Array.from({ length: count }, (__, x) => weight((x + start - center + 0.5) * (1 / stretch)));
    const total = weights.reduce((one, other) => one + other);
    const share = (each) => (isBytes ? Math.floor(0.5 + (each / total) * STEPS) / STEPS : each / total);
    return { start, weights: weights.map(share) };
  });
}

/** A plane (Float32Array or Uint8Array) of another size: of means, or interpolated. */
export function resampled(plane, w, h, newW, newH, isSmooth = false) {
  const isBytes = plane instanceof Uint8Array;
  const pass = (source, size, newSize, step, lines, lineStep, newLineStep) => {
    if (newSize === size) return source;
    const places = weightsOf(isSmooth ? BILINEAR : BOX, size, newSize, isBytes);
    const result = new plane.constructor(lines * newSize);
    for (let line = 0; line < lines; line++) {
      for (let at = 0; at < newSize; at++) {
        const { start, weights } = places[at];
        let total = isBytes ? 0.5 : 0;
        for (let tap = 0, from = line * lineStep + start * step; tap < weights.length; tap++, from += step) {
          total += source[from] * weights[tap];
        }
        result[line * newLineStep + at * step] = isBytes ? Math.min(total, 255) : total;
      }
    }
    return result;
  };
  const rows = (source, tall) => pass(source, w, newW, 1, tall, w, newW);
  const columns = (source, wide) => pass(source, h, newH, wide, wide, 1, 1);
  // Pillow takes the cheaper order.
  return h > newH && h - newH > 2 * (w - newW) ? rows(columns(plane, w), newH) : columns(rows(plane, h), newW);
}

/** The old pixel that stands for each of `newSize` ones, the nearest. */
export function nearest(size, newSize) {
  const step = size / newSize;
  let at = step * -0.5;
  return Int32Array.from({ length: newSize }, () => Math.trunc((at += step)));
}

/** Float32 in 0..1 as levels of 8 bits. */
export function quantised(values) {
  const levels = new Uint8Array(values.length);
  for (let at = 0; at < levels.length; at++) levels[at] = rounded(f32(Math.min(Math.max(values[at], 0), 1) * 255));
  return levels;
}

/** Levels of 8 bits as float32 in 0..1. */
export function unit(levels) {
  const values = new Float32Array(levels.length);
  for (let at = 0; at < values.length; at++) values[at] = levels[at] / 255;
  return values;
}

/** Levels [h * w] blurred by a Gaussian of a radius. */
export function blurred(levels, w, h, radius) {
  const variance = f32((radius * radius) / PASSES);
  const whole = Math.floor((f32(Math.sqrt(12 * variance + 1)) - 1) / 2);
  const upper = f32((2 * whole + 1) * f32(whole * (whole + 1) - f32(3 * variance)));
  const size = f32(whole + f32(upper / f32(6 * f32(variance - (whole + 1) ** 2))));
  const reach = Math.trunc(size);
  const weight = Math.trunc(f32(ONE / f32(f32(size * 2) + 1)));
  const endWeight = Math.trunc((ONE - (reach * 2 + 1) * weight) / 2);
  const result = levels.slice();
  const blur = (from, step, length) => {
    const line = new Uint8Array(length);
    const at = (x) => line[Math.min(Math.max(x, 0), length - 1)];
    for (let pass = 0; pass < PASSES; pass++) {
      for (let x = 0; x < length; x++) line[x] = result[from + x * step];
      let inner = 0;
      for (let x = -reach - 1; x < reach; x++) inner += at(x);
      for (let x = 0; x < length; x++) {
        inner += at(x + reach) - at(x - reach - 1);
        const ends = at(x - reach - 1) + at(x + reach + 1);
        result[from + x * step] = Math.floor((inner * weight + ends * endWeight + ONE / 2) / ONE);
      }
    }
  };
  for (let y = 0; y < h; y++) blur(y * w, 1, w);
  for (let x = 0; x < w; x++) blur(x, w, h);
  return result;
}

/** The median of a window around each of `w` by `w` levels, the edge repeated outside. */
export function medianFiltered(levels, w, side) {
  const window = new Uint8Array(side * side);
  const inside = (at) => Math.min(Math.max(at - (side - 1) / 2, 0), w - 1);
  return levels.map((_, at) => {
    for (let place = 0; place < window.length; place++) {
      const row = inside(Math.floor(at / w) + Math.floor(place / side));
      window[place] = levels[row * w + inside((at % w) + (place % side))];
    }
    return window.sort()[(window.length - 1) / 2];
  });
}
