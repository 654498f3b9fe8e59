// The connected parts of a mask of ink: the digit, frames and borders around it, specks.

import { contactOf, cutOut, label, maskOf, maskOfParts, outsideOf } from "./components.js";
import { rounded } from "./statistics.js";
import { strokeWidth } from "./strokes.js";

const MASK_PIXELS = 512 * 512; // of the mask whose parts are analysed
export const MIN_DIGIT = 0.1; // of the sheet's longer side; what is smaller may be a speck
const EDGE_CONTACT = 0.6; // of an edge: what follows more of it is a frame or a scanner's border
const FLAT_CONTACT = 0.7; // of its own length: what lies on an edge, and is no thicker than
const FLAT_SIDE = 0.1; // of the sheet, is one as well
const FRAME_SIDE = 0.6; // of the sheet's sides, and at most so much of its box filled:
const FRAME_FILL = 0.4;
const NEAR = 0.06; // of the largest part's longer side: a part within twice that belongs to it,
const MIN_NEAR = 0.04; // if it is no smaller than that
const COMPANION = 0.25; // of the largest part's longer side; a smaller part is a speck
const SECOND_DIGIT = 0.6; // of the largest part's height: a part beside it may be a second digit
const BLOB = 0.25; // of its longer side: no stroke is as wide, but a shadow is

/**
 * Returns what a mask shows.
 * @returns {{factor: number, digit: object, rest: object, longest: number, isBlob: boolean,
 *   touchesEdge: boolean, hasSeveral: boolean, hasBorder: boolean, specks: number}} `factor`: pixels of the
 *   mask along a side of one of `digit` and `rest`; `longest`: longer side of the digit's largest part
 */
export function analyse(mask) {
  const factor = Math.max(1, Math.ceil(Math.sqrt(mask.values.length / MASK_PIXELS)));
  const small = pooled(mask, factor);
  const parts = label(small);
  const nothing = { factor, digit: maskOf(small.width, small.height, () => false), rest: small, longest: 0 };
  const none = { ...nothing, isBlob: false, touchesEdge: false, hasSeveral: false, hasBorder: false, specks: 0 };
  if (!parts.count) {
    return none;
  }
  const contact = contactOf(parts);
  const borders = bordersOf(parts, contact);
  if (borders.every(Boolean)) {
    return { ...none, isBlob: hasBlob(parts, contact, borders), hasBorder: true };
  }
  const longer = parts.longer.map((side, number) => (borders[number] ? 0 : side));
  const first = longer.indexOf(longer.reduce((most, side) => Math.max(most, side)));
  const chosen = digitParts(parts, longer, first);
  return {
    factor,
    digit: maskOfParts(parts, chosen),
    rest: maskOfParts(parts, chosen.map((is) => !is)),
    longest: longer[first],
    isBlob: hasBlob(parts, contact, borders.map((is, number) => is || number === first)),
    touchesEdge: contact.some((shares, number) => chosen[number] && shares.some((share) => share > 0)),
    hasSeveral: hasSecondDigit(parts, chosen, first),
    hasBorder: borders.some(Boolean),
    specks: chosen.filter((is, number) => !is && !borders[number]).length,
  };
}

/** Returns which parts are the digit's: the largest, what is near it, what is nearly as large. */
function digitParts(parts, longer, first) {
  const chosen = longer.map((side) => side >= COMPANION * longer[first]);
  const isCandidate = longer.map((side) => side >= Math.max(1, MIN_NEAR * longer[first]));
  const candidates = maskOfParts(parts, isCandidate);
  const joined = label(dilated(candidates, Math.max(1, rounded(NEAR * longer[first])))).labels;
  const groups = new Set();
  parts.labels.forEach((number, at) => {
    if (number >= 0 && chosen[number]) {
      groups.add(joined[at]);
    }
  });
  candidates.values.forEach((is, at) => {
    if (is && groups.has(joined[at])) {
      chosen[parts.labels[at]] = true;
    }
  });
  return chosen;
}

/** Returns which parts are frames or borders of a scan, by what else there is. */
function bordersOf(parts, contact) {
  const { areas, longer, width, height } = parts;
  const alone = contact.map((shares, number) => {
    const isFlat = shares.some((share, edge) => {
      const [along, size] = edge % 2 ? [height, width] : [width, height];
      const [length, depth] = edge % 2 ? ["heights", "widths"] : ["widths", "heights"];
      return share * along >= FLAT_CONTACT * parts[length][number] && parts[depth][number] <= FLAT_SIDE * size;
    });
    return Math.max(...shares) < EDGE_CONTACT && !isFlat;
  });
  const isOther = longer.map((side) => side >= MIN_DIGIT * Math.max(width, height));
  const hasOthers = alone.some((is, number) => is && isOther[number]);
  return alone.map((is, number) => {
    const [wide, high] = [parts.widths[number], parts.heights[number]];
    const isFrame =
      high >= FRAME_SIDE * height && wide >= FRAME_SIDE * width && areas[number] < FRAME_FILL * (high * wide);
    return (!is && hasOthers) || (isFrame && enclosesOther(parts, number, isOther));
  });
}

function enclosesOther(parts, number, isOther) {
  const box = parts.boxes[number];
  const outside = outsideOf(cutOut(parts, box, (each) => each === number));
  const [top, left] = box;
  return outside.values.some((isOutside, at) => {
    const row = top + Math.floor(at / outside.width);
    const part = parts.labels[row * parts.width + left + (at % outside.width)];
    const isWithin = !isOutside && part >= 0 && part !== number;
    return isWithin && isOther[part] && parts.longer[part] >= 0.2 * parts.longer[number];
  });
}

/** Returns whether one of some parts is large and too wide for a stroke. */
function hasBlob(parts, contact, which) {
  const { width, height } = parts;
  return which.some((is, number) => {
    const spans = parts.heights[number] > 0.9 * height && parts.widths[number] > 0.9 * width;
    const isTight = spans && Math.max(...contact[number]) < 0.9; // a digit may fill the picture
    const longest = parts.longer[number];
    if (!is || isTight || longest < 0.4 * Math.max(width, height)) {
      return false;
    }
    const inside = cutOut(parts, parts.boxes[number], (each) => each === number);
    return strokeWidth({ ...inside, values: Float32Array.from(inside.values) }) > BLOB * longest;
  });
}

/** Returns whether another part stands beside the largest, nearly as high. */
function hasSecondDigit({ boxes, heights }, chosen, first) {
  const [, left, , right] = boxes[first];
  return boxes.some(
    (box, number) =>
      chosen[number] && (box[1] > right || box[3] < left) && heights[number] >= SECOND_DIGIT * heights[first],
  );
}

/** Returns a mask of fewer pixels, each set where one of those that it replaces was. */
function pooled(mask, factor) {
  if (factor === 1) {
    return mask;
  }
  const { values, width, height } = mask;
  const small = maskOf(Math.ceil(width / factor), Math.ceil(height / factor), () => false);
  for (let at = 0; at < values.length; at++) {
    if (values[at]) {
      small.values[Math.floor(Math.floor(at / width) / factor) * small.width + Math.floor((at % width) / factor)] = 1;
    }
  }
  return small;
}

/** Returns a pooled mask at the size of the picture. */
export function upsampled(mask, factor, width, height) {
  return factor === 1
    ? mask
    : maskOf(width, height, (at) =>
        mask.values[Math.floor(Math.floor(at / width) / factor) * mask.width + Math.floor((at % width) / factor)],
      );
}

/** Returns a mask dilated by pixels on every side. */
export function dilated({ values, width, height }, pixels) {
  const across = new Uint8Array(values.length);
  const both = new Uint8Array(values.length);
  for (let y = 0; y < height; y++) {
    dilateLine(values, across, y * width, 1, width, pixels);
  }
  for (let x = 0; x < width; x++) {
    dilateLine(across, both, x, width, height, pixels);
  }
  return { values: both, width, height };
}

function dilateLine(source, target, from, step, length, pixels) {
  let until = -1; // the last pixel that what was seen reaches
  for (let at = -pixels; at < length; at++) {
    if (at + pixels < length && source[from + (at + pixels) * step]) {
      until = at + 2 * pixels;
    }
    if (at >= 0 && at <= until) {
      target[from + at * step] = 1;
    }
  }
}
