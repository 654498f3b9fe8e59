// What a mask of ink shows: the digit, frames and borders around it, specks (parts.py).

import { contactOf, label, maskOfPart, maskOfParts, withHoles } from "./components.js";
import { cropped, dilated, pooled } from "./grids.js";
import { most, rounded } from "./statistics.js";
import { strokeWidth } from "./strokes.js";

export const MIN_DIGIT = 0.1;
const MASK_PIXELS = 512 * 512;
const EDGE_CONTACT = 0.6;
const [FLAT_CONTACT, FLAT_SIDE] = [0.7, 0.1];
const [FRAME_SIDE, FRAME_FILL] = [0.6, 0.4];
const [NEAR, MIN_NEAR] = [0.06, 0.04];
const COMPANION = 0.25;
const SECOND_DIGIT = 0.6;
const BLOB = 0.25;

/**
 * Returns what a mask shows: the masks `digit` and `rest`, one of whose pixels stands for `factor` by
 * `factor`; `longest`, the longer side of the digit's largest part; what makes it hard to read.
 */
export function analyse(mask) {
  const factor = Math.max(1, Math.ceil(Math.sqrt(mask.values.length / MASK_PIXELS)));
  const small = factor === 1 ? mask : pooled(mask, factor);
  const parts = label(small);
  const contact = contactOf(parts);
  const borders = bordersOf(parts, contact);
  const longer = parts.longer.map((side, number) => (borders[number] ? 0 : side));
  const longest = most(longer);
  const first = longest ? longer.indexOf(longest) : -1;
  const chosen = longest ? digitParts(parts, longer, longest) : borders.map(() => false);
  return {
    factor,
    longest,
    digit: maskOfParts(parts, chosen),
    rest: longest ? maskOfParts(parts, borders.map((_, number) => !chosen[number])) : small,
    isBlob: borders.some((is, number) => (is || number === first) && isBlob(parts, contact, number)),
    touchesEdge: contact.some((shares, number) => chosen[number] && most(shares) > 0),
    hasSeveral: hasSecondDigit(parts, chosen, first),
    hasBorder: borders.some(Boolean),
    specks: chosen.filter((is, number) => !is && !borders[number]).length,
  };
}

/** Returns which parts are the digit's: the largest, what is near it, what is nearly as large. */
function digitParts(parts, longer, longest) {
  const { labels } = parts;
  const chosen = longer.map((side) => side >= COMPANION * longest);
  const isCandidate = longer.map((side) => side >= Math.max(1, MIN_NEAR * longest));
  if (isCandidate.every((is, number) => is === chosen[number])) return chosen;
  const reach = dilated(maskOfParts(parts, isCandidate), Math.max(1, rounded(NEAR * longest)));
  const joined = label(reach).labels;
  const groups = [];
  for (let at = 0; at < labels.length; at++) {
    if (labels[at] >= 0 && chosen[labels[at]]) groups[joined[at]] = true;
  }
  for (let at = 0; at < labels.length; at++) {
    if (labels[at] >= 0 && isCandidate[labels[at]] && groups[joined[at]]) chosen[labels[at]] = true;
  }
  return chosen;
}

/** Returns which parts are frames or borders of a scan, by what else there is. */
function bordersOf(parts, contact) {
  const { areas, longer, heights, widths, width, height } = parts;
  const alone = contact.map((shares, number) => {
    const [high, wide] = [heights[number], widths[number]];
    const isFlat = shares.some((share, edge) =>
      edge % 2
        ? share * height >= FLAT_CONTACT * high && wide <= FLAT_SIDE * width
        : share * width >= FLAT_CONTACT * wide && high <= FLAT_SIDE * height,
    );
    return most(shares) < EDGE_CONTACT && !isFlat;
  });
  const isOther = longer.map((side) => side >= MIN_DIGIT * Math.max(width, height));
  const hasOthers = alone.some((is, number) => is && isOther[number]);
  return alone.map((is, number) => {
    const [high, wide] = [heights[number], widths[number]];
    const spans = high >= FRAME_SIDE * height && wide >= FRAME_SIDE * width;
    const isFrame = spans && areas[number] < FRAME_FILL * (high * wide);
    return (!is && hasOthers) || (isFrame && enclosesOther(parts, number, isOther));
  });
}

function enclosesOther(parts, number, isOther) {
  const { labels, width, boxes, longer } = parts;
  const within = cropped(labels, width, boxes[number]);
  return withHoles(maskOfPart(parts, number)).values.some((isInside, at) => {
    const part = within[at];
    const isLarge = isInside && part >= 0 && part !== number && isOther[part];
    return isLarge && longer[part] >= 0.2 * longer[number];
  });
}

/** Returns whether a part is large and too wide for a stroke; a digit may be that fills the picture. */
function isBlob(parts, contact, number) {
  const { width, height, heights, widths, longer } = parts;
  const spans = heights[number] > 0.9 * height && widths[number] > 0.9 * width;
  if ((spans && most(contact[number]) < 0.9) || longer[number] < 0.4 * Math.max(width, height)) return false;
  const part = maskOfPart(parts, number);
  return strokeWidth({ ...part, values: new Float32Array(part.values) }) > BLOB * longer[number];
}

/** Returns whether another part stands beside the largest, nearly as high. */
function hasSecondDigit({ boxes, heights }, chosen, first) {
  return chosen.some((is, number) => {
    const isBeside = boxes[number][1] >= boxes[first][3] || boxes[number][3] <= boxes[first][1];
    return is && isBeside && heights[number] >= SECOND_DIGIT * heights[first];
  });
}
