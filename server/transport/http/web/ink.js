// Ink on paper: the digit, cut out from its surroundings.

import { blurred, quantised } from "./filters.js";
import { distanceFromPaper } from "./light.js";
import { findSheet } from "./paper.js";
import { MIN_DIGIT, analyse, dilated, upsampled } from "./parts.js";
import { withoutRuling } from "./ruling.js";
import { largest, median, percentile } from "./statistics.js";
import { maskOf } from "./components.js";

const f32 = Math.fround;
export const MIN_CONTRAST = 0.1; // of the full range; below it a picture counts as blank
export const MIN_INK = f32(0.2); // of the strongest ink; fainter pixels do not count for the box
export const NO_INK = "no ink found: the picture has only one shade";
const NOISE_FACTOR = 5; // ink is this many standard deviations of the noise above the paper
const MIN_NOISE_SIDE = 16; // pixels of a side: too few tell nothing of noise
const [LOW_NOISE, HIGH_NOISE] = [0.02, 0.08]; // of the full range: smoothed by 1, by 2 pixels
const REMAINING_NOISE = [1, 0.3, 0.15]; // share of the noise that smoothing by 0, 1, 2 pixels leaves
const LEVELS = [0.5, 0.3, 0.2]; // of the strongest pixel, at which ink is looked for
const FRINGE = 0.06; // of the digit's longer side: as far from its core soft ink may be
const MAX_UNEVENNESS = 0.2; // of the ink's strength: paper that varies more is hard to tell from ink

/**
 * Returns the ink of a picture.
 * @param {{planes: Float32Array[], width: number, height: number}} picture
 * @returns {{ink: object, box: object, warnings: string[]}} `ink`: {values: Float32Array in 0..1, width,
 *   height}; `box`: where it is in the picture, {left, top, width, height}
 * @throws {Error} there is no ink
 */
export function findInk(picture) {
  if (!picture.planes.every((plane) => plane.every(Number.isFinite))) {
    throw new Error("no ink found: the picture has NaN or infinite values");
  }
  const [top, left, bottom, right] = findSheet(picture);
  const isCut = top > 0 || left > 0 || bottom < picture.height || right < picture.width;
  let sheet = isCut ? cropped(picture, top, left, bottom, right) : picture;
  const noise = noiseLevel(sheet);
  const radius = noise <= LOW_NOISE ? 0 : noise > HIGH_NOISE ? 2 : 1;
  let remaining = noise;
  if (radius && Math.min(sheet.width, sheet.height) >= 100 * radius) { // else strokes may be as thin
    sheet = smoothed(sheet, radius);
    remaining *= REMAINING_NOISE[radius];
  }
  const floor = Math.max(MIN_CONTRAST / 2, NOISE_FACTOR * remaining);
  let found = find(withoutRuling(distanceFromPaper(sheet, false)), floor);
  let isShaded = false;
  if (found.parts.isBlob || found.unevenness > MAX_UNEVENNESS) {
    // As a shadow's edge does it: with the other model of the light, if that fits better.
    const local = find(distanceFromPaper(sheet, true), floor, found);
    const isBetter = local.unevenness < found.unevenness || found.parts.isBlob;
    if (isBetter && !(local.parts.isBlob || local.parts.touchesEdge)) {
      [found, isShaded] = [local, true];
    }
  }
  const { ink, parts, strong } = found;
  const longest = Math.max(ink.width, ink.height);
  const conditions = [
    ["a frame or a border around the digit was ignored", isCut || parts.hasBorder],
    ["a shadow lies over the paper", isShaded],
    ["the picture is noisy", noise > LOW_NOISE || found.unevenness > MAX_UNEVENNESS],
    ["the contrast is low", strong < 2 * MIN_CONTRAST],
    [`specks were ignored (${parts.specks})`, parts.specks > 0],
    ["there is more than one large shape, possibly several digits", parts.hasSeveral],
    ["the ink touches the picture's edge: the digit may be cut off", parts.touchesEdge],
    ["one large area of ink instead of strokes", parts.isBlob],
    [`the digit is small: ${longest} pixels`, longest < 12],
  ];
  const box = { left: left + found.left, top: top + found.top, width: ink.width, height: ink.height };
  return { ink, box, warnings: conditions.filter(([, holds]) => holds).map(([text]) => text) };
}

/** Returns the digit in distances from the paper; `fallback` where there is none. */
function find(distance, floor, fallback = null) {
  const digit = findParts(distance, floor);
  if (!digit) {
    if (!fallback) {
      throw new Error(NO_INK);
    }
    return fallback;
  }
  const { parts, strong } = digit;
  const { low, ...rest } = cutOutDigit(distance, parts, strong);
  return { ...rest, parts, strong, unevenness: low / strong };
}

/** Returns a part of a picture. */
export function cropped(picture, top, left, bottom, right) {
  const planes = picture.planes.map((plane) => croppedPlane(plane, picture.width, top, left, bottom, right));
  return { ...picture, planes, width: right - left, height: bottom - top };
}

export function croppedPlane(plane, width, top, left, bottom, right) {
  const result = new Float32Array((right - left) * (bottom - top));
  for (let y = top; y < bottom; y++) {
    result.set(plane.subarray(y * width + left, y * width + right), (y - top) * (right - left));
  }
  return result;
}

/** Returns the standard deviation of the noise, by the curvature of most pixels: edges and specks are few. */
function noiseLevel({ planes, width, height }) {
  if (Math.min(width, height) < MIN_NOISE_SIDE) {
    return 0;
  }
  const step = Math.max(1, Math.floor(height / 128));
  const levels = planes.map((plane) => {
    const curvature = new Float32Array(Math.ceil(height / step) * (width - 2));
    let to = 0;
    let still = 0;
    for (let y = 0; y < height; y += step) {
      for (let x = y * width; x < (y + 1) * width - 2; x++) {
        const value = Math.abs(f32(f32(plane[x] - f32(2 * plane[x + 1])) + plane[x + 2]));
        curvature[to++] = value;
        still += value === 0 ? 1 : 0;
      }
    }
    return still > curvature.length / 2 + 1 ? 0 : median(curvature);
  });
  return Math.max(...levels) / (0.6745 * Math.sqrt(6));
}

function smoothed(picture, radius) {
  const planes = picture.planes.map((plane) => {
    const levels = blurred(quantised(plane), picture.width, picture.height, radius);
    return Float32Array.from(levels, (level) => level / 255);
  });
  return { ...picture, planes };
}

/**
 * Returns the digit among the parts of what is far from the paper, and how far it is; null if there is none.
 * Looked for from the strongest pixel downwards: the first level that shows more than specks and borders is
 * the digit's.
 */
function findParts(distance, floor) {
  const { width, height } = distance;
  let left = distance.values;
  let best = null;
  for (let attempt = 0; attempt < 3; attempt++) { // again without borders, if they were the strongest
    const strongest = largest(left);
    if (!(strongest >= Math.max(MIN_CONTRAST, floor))) {
      break;
    }
    let parts = null;
    for (const level of new Set(LEVELS.map((share) => Math.max(share * strongest, floor)))) {
      parts = analyse(above(left, width, height, level));
      if (!best || parts.longest > best.longest) {
        best = parts;
      }
      if (parts.longest >= MIN_DIGIT * Math.max(parts.digit.width, parts.digit.height)) {
        return atHalf(left, parts, level, floor, width, height);
      }
    }
    if (!parts.hasBorder) {
      break;
    }
    const rest = upsampled(dilated(parts.rest, 2), parts.factor, width, height).values;
    left = left.map((value, at) => (rest[at] ? 0 : value));
  }
  if (!best || best.longest === 0) {
    return null;
  }
  const digit = upsampled(best.digit, best.factor, width, height).values;
  return { parts: best, strong: percentile(distance.values.filter((_, at) => digit[at]), 90 / 100) };
}

function above(values, width, height, level) {
  const threshold = f32(level);
  const mask = new Uint8Array(values.length);
  for (let at = 0; at < mask.length; at++) {
    mask[at] = values[at] > threshold ? 1 : 0;
  }
  return { values: mask, width, height };
}

/** Returns the parts at half the strength of the digit's own ink, and that strength. */
function atHalf(values, parts, level, floor, width, height) {
  const digit = upsampled(parts.digit, parts.factor, width, height).values;
  const threshold = f32(level);
  const strong = percentile(values.filter((value, at) => digit[at] && value > threshold), 75 / 100);
  const half = Math.max(0.5 * strong, floor);
  if (!(0.8 * half <= level && level <= 1.25 * half)) {
    const again = analyse(above(values, width, height, half));
    if (again.longest >= 0.5 * parts.longest) {
      return { parts: again, strong };
    }
  }
  return { parts, strong };
}

/** Returns the digit's ink in 0..1, cut out, where it is, and how far the paper is from its colour. */
function cutOutDigit(distance, parts, strong) {
  const { values, width, height } = distance;
  const fringe = Math.max(2, Math.trunc(FRINGE * parts.longest));
  const rest = dilated(parts.rest, 2);
  const near = dilated(parts.digit, fringe).values;
  const small = maskOf(rest.width, rest.height, (at) => (near[at] && !rest.values[at]) || parts.digit.values[at]);
  const region = upsampled(small, parts.factor, width, height).values;
  const others = upsampled(rest, parts.factor, width, height).values;
  const paper = values.filter((_, at) => !region[at] && !others[at]);
  let low = 0;
  if (paper.length > 0.05 * values.length) {
    low = Math.min(percentile(paper, 98 / 100), 0.4 * strong);
  }
  const range = f32(strong - low);
  const [lowest, box] = [f32(low), [height, width, 0, 0]];
  const ink = new Float32Array(values.length);
  for (let at = 0; at < ink.length; at++) {
    if (!region[at]) {
      continue;
    }
    ink[at] = Math.min(Math.max(f32(values[at] - lowest) / range, 0), 1);
    if (ink[at] > MIN_INK) {
      const [row, column] = [Math.floor(at / width), at % width];
      box[0] = Math.min(box[0], row);
      box[1] = Math.min(box[1], column);
      box[2] = Math.max(box[2], row + 1);
      box[3] = Math.max(box[3], column + 1);
    }
  }
  const [top, left, bottom, right] = box;
  const cut = { values: croppedPlane(ink, width, ...box), width: right - left, height: bottom - top };
  return { ink: cut, top, left, low };
}
