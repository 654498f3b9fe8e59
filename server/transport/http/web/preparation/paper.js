// Paper: the sheet within a picture, and the colour of its border.
// A picture is {planes: Float32Array[] of [h * w] in 0..1, w, h}.

import { label, maskOfPart, withHoles } from "./components.js";
import { above, maskOf, selected } from "./grids.js";
import { countUpTo, f32, largest, median, most } from "./numbers.js";
import { resampled } from "./pillow.js";

export const SAME_COLOR = 0.08;
const COARSE_PIXELS = 128 * 128;
const MIN_SHEET = 0.25;
const MIN_SHEET_FILL = 0.93;
const MAX_INK = 0.6;
const MIN_HOLE = 0.1;
const SHADES = 128;

/** The box of the paper. */
export function findSheet(picture) {
  const { w, h, planes } = reduced(picture, COARSE_PIXELS);
  const values = farthest(planes, borderColor({ planes, w, h }));
  const others = above({ values, w, h }, otsuThreshold(values));
  const near = maskOf(w, h, (at) => !others.values[at]);
  const area = ([top, left, bottom, right]) => (bottom - top) * (right - left);
  const sheets = [...sheetsOf(near), ...sheetsOf(others)];
  const [top, left, bottom, right] = sheets.reduce((least, box) => (area(box) < area(least) ? box : least), [0, 0, h, w]);
  // One coarse pixel less where something was cut off: it may show a part of that.
  const start = (at, size, coarse) => at && Math.ceil(((at + 1) * size) / coarse);
  const end = (at, size, coarse) => (at < coarse ? Math.floor(((at - 1) * size) / coarse) : size);
  return [start(top, picture.h, h), start(left, picture.w, w), end(bottom, picture.h, h), end(right, picture.w, w)];
}

/** How far each pixel is, in the channel where it is most, from a colour or from other planes. */
export function farthest(planes, ground) {
  const result = new Float32Array(planes[0].length);
  planes.forEach((plane, channel) => {
    const other = ground[channel];
    const isColor = typeof other === "number";
    for (let at = 0; at < result.length; at++) {
      const difference = Math.abs(f32(plane[at] - (isColor ? other : other[at])));
      result[at] = difference > result[at] ? difference : result[at];
    }
  });
  return result;
}

/** A picture with at most so many pixels, each the mean of those that it replaces. */
export function reduced({ planes, w, h }, pixels) {
  const scale = Math.min(Math.sqrt(pixels / (h * w)), 1);
  const [newW, newH] = [w, h].map((side) => Math.max(1, Math.floor(side * scale)));
  return { planes: planes.map((plane) => resampled(plane, w, h, newW, newH)), w: newW, h: newH };
}

/** The pixels of the top row, the bottom row, the left and the right column. */
export function borderOf(plane, w) {
  const column = (x) => Float32Array.from({ length: plane.length / w }, (_, y) => plane[y * w + x]);
  return Float32Array.of(...plane.subarray(0, w), ...plane.subarray(-w), ...column(0), ...column(w - 1));
}

/** The colour that the border shows: the median, or the commonest if that is of few pixels. */
export function borderColor({ planes, w }) {
  const border = planes.map((plane) => borderOf(plane, w));
  const count = border[0].length;
  const limit = f32(SAME_COLOR);
  const color = border.map(median);
  if (countUpTo(farthest(border, color), limit) >= Math.floor(count / 4)) return color;
  let [close, best] = [null, -1];
  for (let at = 0; at < count; at += Math.max(1, Math.floor(count / 64))) {
    const far = farthest(border, border.map((plane) => plane[at]));
    const found = countUpTo(far, limit);
    if (found > best) [close, best] = [far.map((value) => +(value <= limit)), found];
  }
  return border.map((plane) => median(selected(plane, close)));
}

/** The value that splits values in 0..1 into two classes best, by Otsu's measure. */
function otsuThreshold(values) {
  const counts = new Float64Array(SHADES);
  for (const value of values) {
    if (value <= 1) counts[Math.min(Math.floor(value * SHADES), SHADES - 1)]++;
  }
  const sums = counts.map((count, shade) => (count * (shade + 0.5)) / SHADES);
  const add = (one, other) => one + other;
  const [count, total] = [counts.reduce(add), sums.reduce(add)];
  let [below, sum] = [0, 0];
  const between = counts.map((each, shade) => {
    below += each;
    sum += sums[shade];
    const difference = sum / Math.max(below, 1) - (total - sum) / Math.max(count - below, 1);
    return below * (count - below) * (difference * difference);
  });
  // In the middle of all splits that are as good: empty shades lie between the classes.
  const least = largest(between) * (1 - 1e-9);
  const edges = [...between.keys()].filter((shade) => between[shade] >= least);
  return f32(edges.reduce((one, shade) => one + (shade + 1) / SHADES, 0) / edges.length);
}

/** The boxes of parts of a mask that are rectangles with something in or on them. */
function sheetsOf(mask) {
  const parts = label(mask);
  const size = mask.values.length;
  return parts.boxes.filter((_, number) => {
    if (parts.heights[number] * parts.widths[number] < MIN_SHEET * size) return false;
    const inside = maskOfPart(parts, number);
    const isPaper = parts.areas[number] >= MAX_INK * size; // ink may reach in from a frame
    const { values, w, h } = isPaper ? withoutGaps(inside) : withHoles(inside);
    const holes = label(maskOf(w, h, (at) => values[at] > inside.values[at]));
    const fill = 1 - countUpTo(values, 0) / values.length;
    return fill >= MIN_SHEET_FILL && most(holes.longer) >= MIN_HOLE * Math.max(mask.w, mask.h);
  });
}

/** A mask with the gaps in its rows and columns filled. */
function withoutGaps({ values, w, h }) {
  const result = values.slice();
  const fill = (from, step, end) => {
    let to = end;
    while (from < end && !values[from]) from += step;
    while (to > from && !values[to - step]) to -= step;
    for (let at = from; at < to; at += step) result[at] = 1;
  };
  for (let y = 0; y < h; y++) fill(y * w, 1, (y + 1) * w);
  for (let x = 0; x < w; x++) fill(x, w, x + w * h);
  return { values: result, w, h };
}
