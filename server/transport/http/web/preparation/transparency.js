// Transparent pictures, put on the background that their paper has (files.py).

import { selected } from "./grids.js";
import { nearest } from "./resampling.js";
import { largest, median, most, rounded, sum } from "./statistics.js";

const SAMPLE_PIXELS = 256 * 256;
const MIN_CONTRAST = 0.1 * 255;

/** Returns planes of red, green and blue, as Pillow composes them, of those and alpha, not premultiplied. */
export function opaque(planes, width, height) {
  const alphas = planes[3];
  const colors = planes.slice(0, 3);
  if (alphas.every((alpha) => alpha === 255)) return colors;
  const ground = backgroundColor(planes, width, height);
  return colors.map((plane, channel) => {
    for (let at = 0; at < plane.length; at++) {
      const share = alphas[at] * 128;
      const mixed = plane[at] * share + ground[channel] * (255 * 128 - share) + 128 * 128;
      plane[at] = ((mixed >> 8) + mixed) >> 15;
    }
    return plane;
  });
}

/** Returns the colour of the paper behind a picture: of some, the one that makes the fewest edges. */
function backgroundColor(planes, width, height) {
  const scale = Math.min(Math.sqrt(SAMPLE_PIXELS / (width * height)), 1);
  const [wide, high] = [width, height].map((side) => Math.max(1, rounded(side * scale)));
  const [columns, rows] = [nearest(width, wide), nearest(height, high)];
  const sample = planes.map((plane) => {
    const values = new Float32Array(wide * high);
    rows.forEach((row, y) => columns.forEach((column, x) => (values[y * wide + x] = plane[row * width + column])));
    return values;
  });
  const alpha = sample.pop().map((value) => value / 255);
  const candidates = [Float64Array.of(255, 255, 255), Float64Array.of(0, 0, 0)];
  for (const holds of [(value) => value === 0, (value) => value > 0.5]) {
    const part = alpha.map((value) => (holds(value) ? 1 : 0));
    if (part.includes(1)) candidates.push(Float32Array.from(sample, (color) => median(selected(color, part))));
  }
  const edges = candidates.map((each) => edgesForContrast(sample, alpha, each, wide));
  return Array.from(candidates[edges.indexOf(Math.min(...edges))], rounded);
}

/** Returns the steps between neighbours in a picture on a colour, for its contrast; in the colour's type. */
function edgesForContrast(colors, alpha, ground, width) {
  const f32 = Math.fround;
  const round = ground instanceof Float32Array ? f32 : Number;
  const planes = colors.map((color, channel) => {
    const mixed = new ground.constructor(color.length);
    for (let at = 0; at < mixed.length; at++) {
      mixed[at] = f32(color[at] * alpha[at]) + round(ground[channel] * f32(1 - alpha[at]));
    }
    return mixed;
  });
  const contrast = most(planes.map((plane) => round(largest(plane) - plane.reduce((a, b) => Math.min(a, b)))));
  const total = (step) => {
    const steps = new ground.constructor(planes[0].length);
    let count = 0;
    for (let at = step; at < steps.length; at++) {
      if (step === 1 && at % width === 0) {
        continue; // no neighbour in its row
      }
      const to = count++;
      for (const plane of planes) steps[to] = Math.max(steps[to], Math.abs(plane[at] - plane[at - step]));
    }
    return sum(steps, 0, count);
  };
  return contrast < MIN_CONTRAST ? Infinity : (total(width) + total(1)) / contrast;
}
