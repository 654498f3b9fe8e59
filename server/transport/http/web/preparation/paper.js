// Paper: the sheet within a picture, and the colour of its border (paper.py).
// A picture is {planes: Float32Array[] of [height * width] in 0..1, width, height}.

import { label, maskOfPart, withHoles } from "./components.js";
import { maskOf, selected } from "./grids.js";
import { resampled } from "./resampling.js";
import { countUpTo, largest, median, most } from "./statistics.js";

const f32 = Math.fround;
export const SAME_COLOR = 0.08;
const COARSE_PIXELS = 128 * 128;
const MIN_SHEET = 0.25;
const MIN_SHEET_FILL = 0.93;
const MAX_INK = 0.6;
const MIN_HOLE = 0.1;
const SHADES = 128;

/** Returns where the paper is, [top, left, bottom, right], the last two exclusive. */
export function findSheet(picture) {
  const { width, height } = picture;
  const coarse = reduced(picture, COARSE_PIXELS);
  const [columns, rows] = [coarse.width, coarse.height];
  const far = farthest(coarse.planes, borderColor(coarse));
  const threshold = otsuThreshold(far);
  const near = maskOf(columns, rows, (at) => far[at] <= threshold);
  const others = maskOf(columns, rows, (at) => far[at] > threshold);
  const area = ([top, left, bottom, right]) => (bottom - top) * (right - left);
  const sheets = [...sheetsOf(near), ...sheetsOf(others)];
  const whole = [0, 0, rows, columns];
  const [top, left, bottom, right] = sheets.reduce((least, box) => (area(box) < area(least) ? box : least), whole);
  // One coarse pixel less where something was cut off: it may show a part of that.
  return [
    top ? Math.ceil(((top + 1) * height) / rows) : 0,
    left ? Math.ceil(((left + 1) * width) / columns) : 0,
    bottom < rows ? Math.floor(((bottom - 1) * height) / rows) : height,
    right < columns ? Math.floor(((right - 1) * width) / columns) : width,
  ];
}

/** Returns how far each pixel is, in the channel where it is most, from a colour or from other planes. */
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

/** Returns a picture with at most so many pixels, each the mean of those that it replaces. */
export function reduced({ planes, width, height }, pixels) {
  const scale = Math.min(Math.sqrt(pixels / (height * width)), 1);
  const [wide, high] = [width, height].map((side) => Math.max(1, Math.floor(side * scale)));
  return { planes: planes.map((plane) => resampled(plane, width, height, wide, high)), width: wide, height: high };
}

/** Returns the pixels of the top row, the bottom row, the left and the right column. */
export function borderOf(plane, width, height) {
  const border = new Float32Array(2 * (width + height));
  border.set(plane.subarray(0, width));
  border.set(plane.subarray((height - 1) * width), width);
  for (let y = 0; y < height; y++) {
    border[2 * width + y] = plane[y * width];
    border[2 * width + height + y] = plane[y * width + width - 1];
  }
  return border;
}

/** Returns the colour that the border shows: the median, or the commonest if that is of few pixels. */
export function borderColor({ planes, width, height }) {
  const border = planes.map((plane) => borderOf(plane, width, height));
  const count = border[0].length;
  const color = border.map(median);
  let most = countUpTo(farthest(border, color), f32(SAME_COLOR));
  if (most >= Math.floor(count / 4)) return color;
  let close = null;
  most = -1;
  for (let at = 0; at < count; at += Math.max(1, Math.floor(count / 64))) {
    const far = farthest(border, border.map((plane) => plane[at]));
    const found = countUpTo(far, f32(SAME_COLOR));
    if (found > most) [close, most] = [far.map((value) => (value <= f32(SAME_COLOR) ? 1 : 0)), found];
  }
  return border.map((plane) => median(selected(plane, close)));
}

/** Returns the value that splits values in 0..1 into two classes best, by Otsu's measure. */
function otsuThreshold(values) {
  const counts = new Float64Array(SHADES);
  for (let at = 0; at < values.length; at++) {
    if (values[at] <= 1) counts[Math.min(Math.floor(values[at] * SHADES), SHADES - 1)]++;
  }
  const sums = counts.map((count, shade) => (count * (shade + 0.5)) / SHADES);
  const add = (total, each) => total + each;
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
  const edges = Array.from(between.keys()).filter((shade) => between[shade] >= least);
  return f32(edges.reduce((total, shade) => total + (shade + 1) / SHADES, 0) / edges.length);
}

/** Returns the boxes of parts of a mask that are rectangles with something in or on them. */
function sheetsOf(mask) {
  const parts = label(mask);
  const size = mask.values.length;
  return parts.boxes.filter((_, number) => {
    if (parts.heights[number] * parts.widths[number] < MIN_SHEET * size) return false;
    const inside = maskOfPart(parts, number);
    const isPaper = parts.areas[number] >= MAX_INK * size; // ink may reach in from a frame
    const whole = isPaper ? withoutGaps(inside) : withHoles(inside);
    const holes = maskOf(inside.width, inside.height, (at) => whole.values[at] && !inside.values[at]);
    const fill = 1 - countUpTo(whole.values, 0) / whole.values.length;
    return fill >= MIN_SHEET_FILL && most(label(holes).longer) >= MIN_HOLE * Math.max(mask.width, mask.height);
  });
}

/** Returns a mask with the gaps in its rows and columns filled. */
function withoutGaps({ values, width, height }) {
  const [top, left] = [new Uint32Array(width).fill(height), new Uint32Array(height).fill(width)];
  const [bottom, right] = [new Int32Array(width).fill(-1), new Int32Array(height).fill(-1)];
  const rowOf = (at) => Math.floor(at / width);
  for (let at = 0; at < values.length; at++) {
    const [y, x] = [rowOf(at), at % width];
    if (values[at]) {
      top[x] = Math.min(top[x], y);
      left[y] = Math.min(left[y], x);
      bottom[x] = y;
      right[y] = x;
    }
  }
  return maskOf(width, height, (at) => {
    const y = rowOf(at);
    const x = at - y * width;
    return (top[x] <= y && y <= bottom[x]) || (left[y] <= x && x <= right[y]);
  });
}
