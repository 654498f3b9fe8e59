// Transparent pictures, put on the background that their paper has.

import { nearest } from "./resampling.js";
import { median, rounded, sum } from "./statistics.js";

const f32 = Math.fround;
const SAMPLE_PIXELS = 256 * 256; // that the background is chosen by
const MIN_CONTRAST = 0.1 * 255;

/**
 * Returns planes of red, green and blue of a picture with transparency, as Pillow composes them.
 * @param {Uint8Array[]} planes red, green, blue and alpha, not premultiplied
 */
export function opaque(planes, width, height) {
  const alphas = planes[3];
  if (alphas.every((alpha) => alpha === 255)) {
    return planes.slice(0, 3);
  }
  const ground = backgroundColor(planes, width, height);
  return planes.slice(0, 3).map((plane, channel) =>
    plane.map((value, at) => {
      const alpha = alphas[at];
      if (alpha === 0) {
        return ground[channel];
      }
      const share = alpha * 128 * 255; // of 128 * 255 * 255: outside alpha is 255
      const coefficient = Math.floor(share / 255);
      const mixed = value * coefficient + ground[channel] * (255 * 128 - coefficient) + 128 * 128;
      return ((mixed >> 8) + mixed) >> 8 >> 7;
    }),
  );
}

/**
 * Returns the colour of the paper behind a picture. Of white, black, the colour stored where the picture is
 * clear and the commonest one where it is not, it is the one that makes the fewest edges for the contrast
 * that it gives: no fringe around the ink, no outline around a card.
 */
function backgroundColor(planes, width, height) {
  const scale = Math.min(Math.sqrt(SAMPLE_PIXELS / (width * height)), 1);
  const [wide, high] = [width, height].map((side) => Math.max(1, rounded(side * scale)));
  const [columns, rows] = [nearest(width, wide), nearest(height, high)];
  const sample = planes.map((plane) =>
    Float32Array.from({ length: wide * high }, (_, at) =>
      plane[rows[Math.floor(at / wide)] * width + columns[at % wide]]),
  );
  const colors = sample.slice(0, 3);
  const alpha = sample[3].map((value) => value / 255);
  const candidates = [Float64Array.of(255, 255, 255), Float64Array.of(0, 0, 0)];
  for (const holds of [(value) => value === 0, (value) => value > 0.5]) {
    if (alpha.some(holds)) {
      candidates.push(Float32Array.from(colors, (color) => median(color.filter((_, at) => holds(alpha[at])))));
    }
  }
  let [best, least] = [candidates[0], Infinity];
  for (const each of candidates) {
    const edges = edgesForContrast(colors, alpha, each, wide, high);
    if (edges < least) {
      [best, least] = [each, edges];
    }
  }
  return Array.from(best, rounded);
}

/** Returns the steps between neighbours in a picture on a colour, for its contrast; in the colour's precision. */
function edgesForContrast(colors, alpha, ground, width, height) {
  const Values = ground.constructor;
  const round = Values === Float32Array ? f32 : Number;
  const planes = colors.map((color, channel) =>
    Values.from(color, (value, at) => f32(value * alpha[at]) + round(ground[channel] * f32(1 - alpha[at]))),
  );
  const contrast = planes.reduce((most, plane) => {
    const low = plane.reduce((least, value) => Math.min(least, value));
    const high = plane.reduce((found, value) => Math.max(found, value));
    return Math.max(most, round(high - low));
  }, 0);
  if (contrast < MIN_CONTRAST) {
    return Infinity;
  }
  const step = (one, other) =>
    planes.reduce((most, plane) => Math.max(most, Math.abs(round(plane[other] - plane[one]))), 0);
  const down = Values.from({ length: width * (height - 1) }, (_, at) => step(at, at + width));
  const across = Values.from({ length: (width - 1) * height }, (_, at) => {
    const from = Math.floor(at / (width - 1)) * width + (at % (width - 1));
    return step(from, from + 1);
  });
  return (sum(down) + sum(across)) / contrast;
}
