// Ink on paper: the digit, cut out from its surroundings (ink.py).

import { blurred, quantised, unit } from "./filters.js";
import { above, boxOf, cropped, dilated, selected, upsampled } from "./grids.js";
import { distanceFromPaper } from "./light.js";
import { findSheet } from "./paper.js";
import { MIN_DIGIT, analyse } from "./parts.js";
import { withoutRuling } from "./ruling.js";
import { countUpTo, largest, median, most, percentile } from "./statistics.js";

const f32 = Math.fround;
export const MIN_CONTRAST = 0.1;
export const MIN_INK = f32(0.2);
export const NO_INK = "no ink found: the picture has only one shade";
const NOISE_FACTOR = 5;
const MIN_NOISE_SIDE = 16;
const [LOW_NOISE, HIGH_NOISE] = [0.02, 0.08];
const REMAINING_NOISE = [1, 0.3, 0.15]; // after smoothing by 0, 1, 2 pixels
const LEVELS = [0.5, 0.3, 0.2];
const FRINGE = 0.06;
const MAX_UNEVENNESS = 0.2;

/**
 * Returns the `ink` of a picture {planes, width, height}, values in 0..1, its `box` {left, top, width, height}
 * in the picture, all that is not paper as bytes (`whole`), and `warnings`. Throws an error if there is no ink.
 */
export function findInk(picture) {
  if (picture.planes.some((plane) => countUpTo(plane, Number.MAX_VALUE) < plane.length)) {
    throw new Error("no ink found: the picture has NaN or infinite values");
  }
  const [top, left, bottom, right] = findSheet(picture);
  const size = { width: right - left, height: bottom - top };
  const isCut = size.width < picture.width || size.height < picture.height;
  const sheetOf = (plane) => cropped(plane, picture.width, [top, left, bottom, right]);
  let planes = isCut ? picture.planes.map(sheetOf) : picture.planes;
  const noise = noiseLevel(planes, size);
  let radius = noise <= LOW_NOISE ? 0 : noise > HIGH_NOISE ? 2 : 1;
  if (Math.min(size.width, size.height) < 100 * radius) {
    radius = 0; // strokes may be as thin
  }
  if (radius) planes = planes.map((plane) => unit(blurred(quantised(plane), size.width, size.height, radius)));
  const sheet = { planes, ...size };
  const floor = Math.max(MIN_CONTRAST / 2, NOISE_FACTOR * (noise * REMAINING_NOISE[radius]));
  let found = find(withoutRuling(distanceFromPaper(sheet, false)), floor);
  let isShaded = false;
  if (!found) throw new Error(NO_INK);
  if (found.parts.isBlob || found.unevenness > MAX_UNEVENNESS) {
    // As a shadow's edge does it: with the other model of the light, if that fits better.
    const local = find(distanceFromPaper(sheet, true), floor) ?? found;
    const isBetter = local.unevenness < found.unevenness || found.parts.isBlob;
    if (isBetter && !local.parts.isBlob && !local.parts.touchesEdge) [found, isShaded] = [local, true];
  }
  const { ink, parts } = found;
  const longest = Math.max(ink.width, ink.height);
  const conditions = {
    "a frame or a border around the digit was ignored": isCut || parts.hasBorder,
    "a shadow lies over the paper": isShaded,
    "the picture is noisy": noise > LOW_NOISE || found.unevenness > MAX_UNEVENNESS,
    "the contrast is low": found.strong < 2 * MIN_CONTRAST,
    [`specks were ignored (${parts.specks})`]: parts.specks > 0,
    "there is more than one large shape, possibly several digits": parts.hasSeveral,
    "the ink touches the picture's edge: the digit may be cut off": parts.touchesEdge,
    "one large area of ink instead of strokes": parts.isBlob,
    [`the digit is small: ${longest} pixels`]: longest < 12,
  };
  const box = { left: left + found.left, top: top + found.top, width: ink.width, height: ink.height };
  const pixels = new Uint8Array(picture.width * picture.height);
  for (let y = 0, at = 0; y < size.height; y++) {
    for (let to = (top + y) * picture.width + left, end = to + size.width; to < end; to++, at++) {
      pixels[to] = Math.min(found.values[at] * (255 / found.strong), 255);
    }
  }
  const whole = { pixels, width: picture.width };
  return { whole, ink, box, warnings: Object.keys(conditions).filter((text) => conditions[text]) };
}

/** Returns the digit in distances from the paper; null where there is none. */
function find(distance, floor) {
  const digit = findParts(distance, floor);
  return digit && { ...digit, ...cutOut(distance, digit.parts, digit.strong), values: distance.values };
}

/** Returns the standard deviation of the noise, by the curvature of most pixels. */
function noiseLevel(planes, { width, height }) {
  if (Math.min(width, height) < MIN_NOISE_SIDE) return 0;
  const step = Math.max(1, Math.floor(height / 128));
  const levels = planes.map((plane) => {
    const curvature = new Float32Array(Math.ceil(height / step) * (width - 2));
    for (let y = 0, to = 0; y < height; y += step) {
      for (let x = y * width, end = x + width - 2; x < end; x++) {
        curvature[to++] = Math.abs(f32(f32(plane[x] - f32(2 * plane[x + 1])) + plane[x + 2]));
      }
    }
    return median(curvature);
  });
  return most(levels) / (0.6745 * Math.sqrt(6));
}

/** Returns the digit's parts among what is far from the paper, and how far it is; null if there is none. */
function findParts(distance, floor) {
  let left = distance;
  let best = { longest: 0 };
  for (let attempt = 0; attempt < 3; attempt++) { // again without borders, if they were the strongest
    const strongest = largest(left.values);
    if (strongest < Math.max(MIN_CONTRAST, floor)) break;
    let parts = null;
    for (const level of new Set(LEVELS.map((share) => Math.max(share * strongest, floor)))) {
      parts = analyse(above(left, level));
      best = parts.longest > best.longest ? parts : best;
      if (parts.longest >= MIN_DIGIT * Math.max(parts.digit.width, parts.digit.height)) {
        return atHalf(left, parts, level, floor);
      }
    }
    if (!parts.hasBorder) break;
    const rest = upsampled(dilated(parts.rest, 2), parts.factor, distance).values;
    left = { ...distance, values: left.values.map((value, at) => (rest[at] ? 0 : value)) };
  }
  if (best.longest === 0) return null;
  const digit = upsampled(best.digit, best.factor, distance).values;
  return { parts: best, strong: percentile(selected(distance.values, digit), 0.9) };
}

/** Returns the parts at half the strength of the digit's own ink, and that strength. */
function atHalf(distance, parts, level, floor) {
  const digit = upsampled(parts.digit, parts.factor, distance).values;
  const inside = above(distance, level).values;
  for (let at = 0; at < inside.length; at++) inside[at] &= digit[at];
  const strong = percentile(selected(distance.values, inside), 0.75);
  const half = Math.max(0.5 * strong, floor);
  if (level < 0.8 * half || level > 1.25 * half) {
    const again = analyse(above(distance, half));
    return { parts: again.longest >= 0.5 * parts.longest ? again : parts, strong };
  }
  return { parts, strong };
}

/** Returns the digit's ink in 0..1, cut out, where it is, and how uneven the paper is for it. */
function cutOut(distance, parts, strong) {
  const { values, width } = distance;
  const rest = dilated(parts.rest, 2);
  const near = dilated(parts.digit, Math.max(2, Math.trunc(FRINGE * parts.longest)));
  const small = { ...rest, values: new Uint8Array(rest.values.length) };
  const others = { ...small, values: small.values.slice() };
  for (let at = 0; at < others.values.length; at++) {
    small.values[at] = (near.values[at] & (1 - rest.values[at])) | parts.digit.values[at];
    others.values[at] = 1 - (near.values[at] | rest.values[at]);
  }
  const region = upsampled(small, parts.factor, distance);
  const paper = selected(values, upsampled(others, parts.factor, distance).values);
  const low = paper.length > 0.05 * values.length ? Math.min(percentile(paper, 0.98), 0.4 * strong) : 0;
  const around = boxOf(region, 0);
  const size = { width: around[3] - around[1], height: around[2] - around[0] };
  const isInk = cropped(region.values, width, around);
  const ink = cropped(values, width, around);
  for (let at = 0; at < ink.length; at++) {
    ink[at] = isInk[at] ? Math.min(Math.max(f32(ink[at] - f32(low)) / f32(strong - low), 0), 1) : 0;
  }
  const box = boxOf({ values: ink, ...size }, MIN_INK);
  const [top, left, bottom, right] = box;
  const cut = { values: cropped(ink, size.width, box), width: right - left, height: bottom - top };
  return { ink: cut, top: around[0] + top, left: around[1] + left, unevenness: low / strong };
}
