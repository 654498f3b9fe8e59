// What a mask of ink shows: the digit, frames and borders around it, specks.

import { contactOf, label, maskOfPart, maskOfParts, withHoles } from "./components.js";
import { cropped, dilated, pooled } from "./grids.js";
import { most, rounded } from "./numbers.js";
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
 * What a mask shows: the masks `digit` and `rest`, a pixel of which stands for `factor` by `factor`; `longest`,
 * the longer side of the digit's largest part; what makes it hard to read.
 */
export function analyse(mask) {
  const factor = Math.max(1, Math.ceil(Math.sqrt(mask.values.length / MASK_PIXELS)));
  const parts = label(factor === 1 ? mask : pooled(mask, factor));
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
    rest: maskOfParts(parts, chosen.map((is) => !is)),
    isBlob: borders.some((is, number) => (is || number === first) && isBlob(parts, contact, number)),
    touchesEdge: contact.some((shares, number) => chosen[number] && most(shares) > 0),
    hasSeveral: hasSecondDigit(parts, chosen, first),
    hasBorder: borders.some(Boolean),
    specks: longest ? chosen.filter((is, number) => !is && !borders[number]).length : 0,
  };
}

/** Which parts are the digit's: the largest, what is near it, what is nearly as large. */
function digitParts(parts, longer, longest) {
  const { labels } = parts;
  const chosen = longer.map((side) => side >= COMPANION * longest);
  const isCandidate = longer.map((side) => side >= Math.max(1, MIN_NEAR * longest));
  if (isCandidate.every((is, number) => is === chosen[number])) return chosen;
  const joined = label(dilated(maskOfParts(parts, isCandidate), Math.max(1, rounded(NEAR * longest)))).labels;
  const groups = [];
  labels.forEach((number, at) => {
    if (chosen[number]) groups[joined[at]] = true;
  });
  labels.forEach((number, at) => {
    if (isCandidate[number] && groups[joined[at]]) chosen[number] = true;
  });
  return chosen;
}

/** Which parts are frames or borders of a scan, by what else there is. */
function bordersOf(parts, contact) {
  const { areas, longer, heights, widths, w, h } = parts;
  const alone = contact.map((shares, number) => {
    const isFlat = shares.some((share, edge) =>
      edge % 2
        ? share * h >= FLAT_CONTACT * heights[number] && widths[number] <= FLAT_SIDE * w
        : share * w >= FLAT_CONTACT * widths[number] && heights[number] <= FLAT_SIDE * h,
    );
    return most(shares) < EDGE_CONTACT && !isFlat;
  });
  const isOther = longer.map((side) => side >= MIN_DIGIT * Math.max(w, h));
  const hasOthers = alone.some((is, number) => is && isOther[number]);
  return alone.map((is, number) => {
    const [high, wide] = [heights[number], widths[number]];
    const isFrame = high >= FRAME_SIDE * h && wide >= FRAME_SIDE * w && areas[number] < FRAME_FILL * (high * wide);
    return (!is && hasOthers) || (isFrame && enclosesOther(parts, number, isOther));
  });
}

function enclosesOther({ labels, w, boxes, longer }, number, isOther) {
  const { values } = cropped({ values: labels, w }, boxes[number]);
  return withHoles(maskOfPart({ labels, w, boxes }, number)).values.some((isInside, at) => {
    const part = values[at];
    return isInside && part !== number && isOther[part] && longer[part] >= 0.2 * longer[number];
  });
}

/** Whether a part is large and too wide for a stroke; a digit may be that fills the picture. */
function isBlob(parts, contact, number) {
  const { w, h, heights, widths, longer } = parts;
  const spans = heights[number] > 0.9 * h && widths[number] > 0.9 * w;
  if ((spans && most(contact[number]) < 0.9) || longer[number] < 0.4 * Math.max(w, h)) return false;
  const part = maskOfPart(parts, number);
  return strokeWidth({ ...part, values: new Float32Array(part.values) }) > BLOB * longer[number];
}

/** Whether another part stands beside the largest, nearly as high. */
function hasSecondDigit({ boxes, heights }, chosen, first) {
  return chosen.some((is, number) => {
    const isBeside = is && (boxes[number][1] >= boxes[first][3] || boxes[number][3] <= boxes[first][1]);
    return isBeside && heights[number] >= SECOND_DIGIT * heights[first];
  });
}
