// Transparent pictures, put on the background that their paper has.

import { selected } from "./grids.js";
import { f32, largest, median, most, rounded, sum } from "./numbers.js";
import { nearest } from "./pillow.js";

const SAMPLE_PIXELS = 256 * 256;
const MIN_CONTRAST = 0.1 * 255;

/** Planes of red, green and blue, as Pillow composes them, of those and alpha, not premultiplied. */
export function opaque(planes, w, h) {
  const [red, green, blue, alpha] = planes;
  if (alpha.every((each) => each === 255)) return [red, green, blue];
  const ground = backgroundColor(planes, w, h);
  return [red, green, blue].map((plane, channel) => {
    for (let at = 0; at < plane.length; at++) {
      const share = alpha[at] * 128;
      const mixed = plane[at] * share + ground[channel] * (255 * 128 - share) + 128 * 128;
      plane[at] = ((mixed >> 8) + mixed) >> 15;
    }
    return plane;
  });
}

/** The colour of the paper behind a picture: of some, the one that makes the fewest edges. */
function backgroundColor(planes, w, h) {
  const scale = Math.min(Math.sqrt(SAMPLE_PIXELS / (w * h)), 1);
  const [wide, high] = [w, h].map((side) => Math.max(1, rounded(side * scale)));
  const [columns, rows] = [nearest(w, wide), nearest(h, high)];
  const sample = planes.map((plane) => {
    const values = new Float32Array(wide * high);
    rows.forEach((row, y) => columns.forEach((column, x) => (values[y * wide + x] = plane[row * w + column])));
    return values;
  });
  const alpha = sample.pop().map((value) => value / 255);
  const candidates = [Float64Array.of(255, 255, 255), Float64Array.of(0, 0, 0)];
  for (const part of [alpha.map((value) => +(value === 0)), alpha.map((value) => +(value > 0.5))]) {
    if (part.includes(1)) candidates.push(Float32Array.from(sample, (color) => median(selected(color, part))));
  }
  const edges = candidates.map((each) => edgesForContrast(sample, alpha, each, wide));
  return Array.from(candidates[edges.indexOf(Math.min(...edges))], rounded);
}

/** The steps between neighbours in a picture on a colour, for its contrast; in the colour's precision. */
function edgesForContrast(colors, alpha, ground, w) {
  const Values = ground.constructor;
  const round = Values === Float32Array ? f32 : Number;
  const planes = colors.map((color, channel) => {
    const mixed = new Values(color.length);
    for (let at = 0; at < mixed.length; at++) {
      mixed[at] = f32(color[at] * alpha[at]) + round(ground[channel] * f32(1 - alpha[at]));
    }
    return mixed;
  });
  const contrast = most(planes.map((plane) => round(largest(plane) - plane.reduce((a, b) => Math.min(a, b)))));
  const total = (step, isInRow) => {
    const steps = new Values(alpha.length);
    let count = 0;
    for (let at = step; at < steps.length; at++) {
      if (isInRow && at % w === 0) continue; // the first of its row
      for (const plane of planes) steps[count] = Math.max(steps[count], Math.abs(plane[at] - plane[at - step]));
      count++;
    }
    return sum(steps, 0, count);
  };
  return contrast < MIN_CONTRAST ? Infinity : (total(w, false) + total(1, true)) / contrast;
}
