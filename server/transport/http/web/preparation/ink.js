// Ink on paper: the digit, cut out from its surroundings.

import { above, boxOf, cropped, dilated, selected, sizeOf, upsampled } from "./grids.js";
import { distanceFromPaper } from "./light.js";
import { countUpTo, f32, largest, median, most, percentile } from "./numbers.js";
import { findSheet } from "./paper.js";
import { MIN_DIGIT, analyse } from "./parts.js";
import { blurred, quantised, unit } from "./pillow.js";
import { withoutRuling } from "./ruling.js";

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
 * The `ink` of a picture, values in 0..1, its box's `left` and `top` in the picture, `warnings`, and all that is
 * not paper as bytes (`pixels`).
 * @throws {Error} if there is no ink
 */
export function findInk(picture) {
  if (picture.planes.some((plane) => countUpTo(plane, Number.MAX_VALUE) < plane.length)) {
    throw new Error("no ink found: the picture has NaN or infinite values");
  }
  const box = findSheet(picture);
  const { w, h } = sizeOf(box);
  const isCut = w < picture.w || h < picture.h;
  let { planes } = picture;
  if (isCut) planes = planes.map((values) => cropped({ values, w: picture.w }, box).values);
  const noise = noiseLevel(planes, w, h);
  let radius = noise <= LOW_NOISE ? 0 : noise > HIGH_NOISE ? 2 : 1;
  if (Math.min(w, h) < 100 * radius) radius = 0; // strokes may be as thin
  if (radius) planes = planes.map((plane) => unit(blurred(quantised(plane), w, h, radius)));
  const floor = Math.max(MIN_CONTRAST / 2, NOISE_FACTOR * (noise * REMAINING_NOISE[radius]));
  let found = find(withoutRuling(distanceFromPaper({ planes, w, h }, false)), floor);
  let isShaded = false;
  if (!found) throw new Error(NO_INK);
  if (found.parts.isBlob || found.unevenness > MAX_UNEVENNESS) {
    // As a shadow's edge does it: with the other model of the light, if that fits better.
    const local = find(distanceFromPaper({ planes, w, h }, true), floor) ?? found;
    const isBetter = local.unevenness < found.unevenness || found.parts.isBlob;
    if (isBetter && !local.parts.isBlob && !local.parts.touchesEdge) [found, isShaded] = [local, true];
  }
  const { ink, parts } = found;
  const longest = Math.max(ink.w, ink.h);
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
  const [top, left] = box;
  const pixels = new Uint8Array(picture.w * picture.h);
  const shown = levels(found.values, 255 / found.strong);
  for (let y = 0; y < h; y++) pixels.set(shown.subarray(y * w, (y + 1) * w), (top + y) * picture.w + left);
  const warnings = Object.keys(conditions).filter((text) => conditions[text]);
  return { ink, left: left + found.left, top: top + found.top, warnings, pixels };
}

function levels(values, factor) {
  const result = new Uint8Array(values.length);
  for (let at = 0; at < result.length; at++) result[at] = values[at] * factor > 255 ? 255 : values[at] * factor;
  return result;
}

/** The digit in distances from the paper; null where there is none. */
function find(distance, floor) {
  const digit = findParts(distance, floor);
  return digit && { ...digit, ...cutOut(distance, digit.parts, digit.strong), values: distance.values };
}

/** The standard deviation of the noise, by the curvature of most pixels. */
function noiseLevel(planes, w, h) {
  if (Math.min(w, h) < MIN_NOISE_SIDE) return 0;
  const step = Math.max(1, Math.floor(h / 128));
  const levels = planes.map((plane) => {
    const curvature = new Float32Array(Math.ceil(h / step) * (w - 2));
    for (let y = 0, to = 0; y < h; y += step) {
      for (let x = y * w, end = x + w - 2; x < end; x++) {
        curvature[to++] = Math.abs(f32(f32(plane[x] - f32(2 * plane[x + 1])) + plane[x + 2]));
      }
    }
    return median(curvature);
  });
  return most(levels) / (0.6745 * Math.sqrt(6));
}

/** The digit's parts among what is far from the paper, and how far it is; null if there is none. */
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
      if (parts.longest >= MIN_DIGIT * Math.max(parts.digit.w, parts.digit.h)) return atHalf(left, parts, level, floor);
    }
    if (!parts.hasBorder) break;
    const rest = upsampled(dilated(parts.rest, 2), parts.factor, distance).values;
    left = { ...distance, values: left.values.map((value, at) => (rest[at] ? 0 : value)) };
  }
  if (best.longest === 0) return null;
  const digit = upsampled(best.digit, best.factor, distance).values;
  return { parts: best, strong: percentile(selected(distance.values, digit), 0.9) };
}

/** The parts at half the strength of the digit's own ink, and that strength. */
function atHalf(distance, parts, level, floor) {
  const digit = upsampled(parts.digit, parts.factor, distance).values;
  const inside = above(distance, level).values;
  for (let at = 0; at < inside.length; at++) inside[at] &= digit[at];
  const strong = percentile(selected(distance.values, inside), 0.75);
  const half = Math.max(0.5 * strong, floor);
  if (level >= 0.8 * half && level <= 1.25 * half) return { parts, strong };
  const again = analyse(above(distance, half));
  return { parts: again.longest >= 0.5 * parts.longest ? again : parts, strong };
}

/** The digit's ink in 0..1, cut out, where it is, and how uneven the paper is for it. */
function cutOut(distance, parts, strong) {
  const rest = dilated(parts.rest, 2);
  const near = dilated(parts.digit, Math.max(2, Math.trunc(FRINGE * parts.longest)));
  const [region, others] = [near.values.slice(), near.values.slice()];
  for (let at = 0; at < region.length; at++) {
    region[at] = (region[at] & (1 - rest.values[at])) | parts.digit.values[at];
    others[at] = 1 - (others[at] | rest.values[at]);
  }
  const full = (values) => upsampled({ ...near, values }, parts.factor, distance);
  const isInk = full(region);
  const paper = selected(distance.values, full(others).values);
  const isEnough = paper.length > 0.05 * distance.values.length;
  const low = isEnough ? Math.min(percentile(paper, 0.98), 0.4 * strong) : 0;
  const around = boxOf(isInk, 0);
  const ink = cropped(distance, around);
  const isWithin = cropped(isInk, around).values;
  for (let at = 0; at < isWithin.length; at++) {
    const value = f32(ink.values[at] - f32(low)) / f32(strong - low);
    ink.values[at] = isWithin[at] ? Math.min(Math.max(value, 0), 1) : 0;
  }
  const box = boxOf(ink, MIN_INK);
  return { ink: cropped(ink, box), top: around[0] + box[0], left: around[1] + box[1], unevenness: low / strong };
}
