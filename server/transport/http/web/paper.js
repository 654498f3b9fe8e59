// Paper: the sheet within a picture, and the colour of its border.
// A picture is {planes: Float32Array[] of [height * width] in 0..1, width, height}.

import { cutOut, label, maskOf, outsideOf } from "./components.js";
import { resampled } from "./resampling.js";
import { median } from "./statistics.js";

const f32 = Math.fround;
const COARSE_PIXELS = 128 * 128; // enough to see where the paper is
const MIN_SHEET = 0.25; // of the picture's area
const MIN_SHEET_FILL = 0.93; // of its box: a sheet has four straight sides, a digit has not
const MAX_INK = 0.6; // of the picture's area: what covers more is paper
const MIN_HOLE = 0.1; // of the picture's longer side: a sheet has something on it
export const SAME_COLOR = 0.08; // of the full range: colours that differ less are one
const SHADES = 128; // that a threshold is chosen from

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
  if (!sheets.length) {
    return [0, 0, height, width];
  }
  const [top, left, bottom, right] = sheets.reduce((least, box) => (area(box) < area(least) ? box : least));
  // One coarse pixel less where something was cut off: it may show a part of that.
  return [
    top ? Math.ceil(((top + 1) * height) / rows) : 0,
    left ? Math.ceil(((left + 1) * width) / columns) : 0,
    bottom < rows ? Math.floor(((bottom - 1) * height) / rows) : height,
    right < columns ? Math.floor(((right - 1) * width) / columns) : width,
  ];
}

/**
 * Returns the largest difference over the channels of each pixel, float32.
 * @param {number[]|Float32Array[]} ground what the planes differ from: a colour, or a plane for each
 */
export function farthest(planes, ground) {
  const result = new Float32Array(planes[0].length);
  planes.forEach((plane, channel) => {
    const other = ground[channel];
    const isColor = typeof other === "number";
    for (let at = 0; at < result.length; at++) {
      const difference = Math.abs(f32(plane[at] - (isColor ? other : other[at])));
      if (difference > result[at]) {
        result[at] = difference;
      }
    }
  });
  return result;
}

/** Returns a picture with at most so many pixels, each the mean of those that it replaces. */
export function reduced(picture, pixels) {
  const scale = Math.sqrt(pixels / (picture.height * picture.width));
  if (scale >= 1) {
    return picture;
  }
  const [width, height] = [picture.width, picture.height].map((side) => Math.max(1, Math.floor(side * scale)));
  const planes = picture.planes.map((plane) => resampled(plane, picture.width, picture.height, width, height));
  return { planes, width, height };
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

/**
 * Returns the colour that the border shows: the median, if it is a colour of many pixels. Where ink
 * covers half of the border it is a shade of neither, and the commonest colour is taken.
 */
export function borderColor({ planes, width, height }) {
  const border = planes.map((plane) => borderOf(plane, width, height));
  const count = border[0].length;
  const color = border.map(median);
  const closeTo = (each) => {
    const far = farthest(border, each);
    return maskOf(count, 1, (at) => far[at] <= f32(SAME_COLOR)).values;
  };
  const countOf = (mask) => mask.reduce((total, is) => total + is, 0);
  if (countOf(closeTo(color)) >= Math.floor(count / 4)) {
    return color;
  }
  let [close, most] = [null, -1];
  for (let at = 0; at < count; at += Math.max(1, Math.floor(count / 64))) {
    const mask = closeTo(border.map((plane) => plane[at]));
    if (countOf(mask) > most) {
      [close, most] = [mask, countOf(mask)];
    }
  }
  return border.map((plane) => median(plane.filter((_, at) => close[at])));
}

/** Returns the value that splits values in 0..1 into two classes best, by Otsu's measure. */
function otsuThreshold(values) {
  const counts = new Float64Array(SHADES);
  for (let at = 0; at < values.length; at++) {
    if (values[at] <= 1) {
      counts[Math.min(Math.floor(values[at] * SHADES), SHADES - 1)]++;
    }
  }
  const middle = (shade) => (shade + 0.5) / SHADES;
  const total = counts.reduce((sum, count) => sum + count, 0);
  const totalSum = counts.reduce((sum, count, shade) => sum + count * middle(shade), 0);
  let [below, sum] = [0, 0];
  const between = counts.map((count, shade) => {
    below += count;
    sum += count * middle(shade);
    const above = total - below;
    const difference = sum / Math.max(below, 1) - (totalSum - sum) / Math.max(above, 1);
    return below * above * (difference * difference);
  });
  // In the middle of all splits that are as good: empty shades lie between the classes.
  const least = Math.max(...between) * (1 - 1e-9);
  let [found, edges] = [0, 0];
  between.forEach((each, shade) => {
    if (each >= least) {
      found++;
      edges += (shade + 1) / SHADES;
    }
  });
  return f32(edges / found);
}

/** Returns the boxes of parts of a mask that are rectangles with something in or on them. */
function sheetsOf(mask) {
  const parts = label(mask);
  const size = mask.values.length;
  const found = [];
  parts.boxes.forEach((box, number) => {
    if (parts.heights[number] * parts.widths[number] < MIN_SHEET * size) {
      return;
    }
    const inside = cutOut(parts, box, (each) => each === number);
    const { width, height, values } = inside;
    const isPaper = parts.areas[number] >= MAX_INK * size; // no digit: ink may reach in from a frame
    const whole = isPaper ? filled(inside) : outsideOf(inside).values.map((is) => 1 - is);
    const holes = label(maskOf(width, height, (at) => whole[at] && !values[at]));
    const widest = holes.longer.reduce((most, side) => Math.max(most, side), 0);
    const fill = whole.reduce((total, is) => total + is, 0) / whole.length;
    if (fill >= MIN_SHEET_FILL && widest >= MIN_HOLE * Math.max(mask.width, mask.height)) {
      const [top, left, bottom, right] = box;
      found.push([top, left, bottom + 1, right + 1]);
    }
  });
  return found;
}

/** Returns the values of a mask with the gaps in its rows and columns filled. */
function filled({ values, width, height }) {
  const result = new Uint8Array(values.length);
  const fill = (from, step, length) => {
    let [first, last] = [0, length - 1];
    while (first < length && !values[from + first * step]) {
      first++;
    }
    while (last > first && !values[from + last * step]) {
      last--;
    }
    for (let at = first; at <= last; at++) {
      result[from + at * step] = 1;
    }
  };
  for (let y = 0; y < height; y++) {
    fill(y * width, 1, width);
  }
  for (let x = 0; x < width; x++) {
    fill(x, width, height);
  }
  return result;
}
