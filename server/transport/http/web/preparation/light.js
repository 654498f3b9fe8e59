// Light on paper: how far each pixel is from the paper's colour, which may vary over the sheet.

import { selected } from "./grids.js";
import { countUpTo, f32, largest, median, most } from "./numbers.js";
import { SAME_COLOR, borderColor, farthest, reduced } from "./paper.js";
import { medianFiltered, quantised, resampled, unit } from "./pillow.js";

const FIT_PIXELS = 64 * 64;
const TERMS = 6; // of a quadratic function of the place: 1, y, x, yy, yx, xx
const LOCAL_SIDE = 32;
const LOCAL_WINDOW = 17;
const MIN_GAIN = 1.05;
const [MIN_LIGHT, MIN_SHADE] = [f32(0.3), f32(0.4)];

/**
 * How far each pixel is from the paper, whose colour may vary smoothly over the sheet, as light does; with
 * `isLocal` also as abruptly as a shadow's edge.
 */
export function distanceFromPaper(picture, isLocal) {
  const ground = isLocal ? localPaper(picture) : smoothPaper(picture);
  const values = farthest(picture.planes, ground);
  if (!isLocal && typeof ground[0] !== "number") {
    const light = farthest(ground, ground.map(() => 0));
    const brightest = largest(light);
    for (let at = 0; at < values.length && brightest >= MIN_LIGHT; at++) {
      values[at] *= f32(brightest / Math.max(light[at], f32(MIN_SHADE * brightest)));
    }
  }
  return { values, w: picture.w, h: picture.h };
}

/** The paper's colour as the median of a large window around each place. */
function localPaper({ planes, w, h }) {
  return planes.map((plane) => {
    const levels = quantised(resampled(plane, w, h, LOCAL_SIDE, LOCAL_SIDE));
    return resampled(unit(medianFiltered(levels, LOCAL_SIDE, LOCAL_WINDOW)), LOCAL_SIDE, LOCAL_SIDE, w, h, true);
  });
}

/**
 * The paper's colour, a quadratic function of the place fitted where there is no ink: a plane for each channel,
 * or a number if one colour explains as much.
 */
function smoothPaper(picture) {
  const { planes, w, h } = reduced(picture, FIT_PIXELS);
  const constant = borderColor({ planes, w });
  let off = farthest(planes, constant);
  const evenly = countUpTo(off, f32(SAME_COLOR));
  if (Math.min(w, h) < 8 || off.length < MIN_GAIN * evenly) return constant; // no fit could explain more
  const terms = quadratic(w, h);
  let tolerance = 0.5 * largest(off);
  let limit = f32(tolerance);
  const sums = { square: square(() => 0), right: planes.map(() => new Float64Array(TERMS)) };
  const paper = new Uint8Array(off.length);
  let [fits, light] = [null, null];
  for (let round = 0; round < 8; round++) {
    if (hasChanged(sums, paper, terms, planes, off, limit) || !fits) {
      fits = solved(sums);
      light = fits.map((fit) => evaluated(terms, fit));
      off = new Float64Array(off.length);
      planes.forEach((plane, channel) => {
        for (let at = 0; at < off.length; at++) off[at] = Math.max(off[at], Math.abs(plane[at] - light[channel][at]));
      });
    }
    const least = Math.max(0.02, 0.6 * tolerance);
    const seen = selected(off, paper);
    const usual = countUpTo(seen, least / 4) > seen.length / 2 ? 0 : 4 * median(seen);
    limit = tolerance = Math.max(least, Math.min(tolerance, usual));
  }
  const goesTooFar = planes.some((plane, channel) => {
    const seen = selected(plane, paper);
    const low = f32(seen.reduce((one, other) => Math.min(one, other)) - f32(SAME_COLOR));
    const high = f32(largest(seen) + f32(SAME_COLOR));
    return light[channel].some((value) => value < low || value > high);
  });
  if (goesTooFar || countUpTo(off, SAME_COLOR) < MIN_GAIN * evenly) return constant;
  const places = quadratic(picture.w, picture.h);
  return fits.map((fit) => ground(places, Float32Array.from(fit)));
}

/** The terms of each pixel, y and x from -1 to 1, [pixels * 6]. */
function quadratic(w, h) {
  const place = (at, size) => f32(at === size - 1 ? 1 : at * (2 / (size - 1)) - 1);
  const terms = new Float32Array(w * h * TERMS);
  for (let row = 0, to = 0; row < h; row++) {
    const y = place(row, h);
    for (let column = 0; column < w; column++, to += TERMS) {
      const x = place(column, w);
      terms[to] = 1;
      terms[to + 1] = y;
      terms[to + 2] = x;
      terms[to + 3] = y * y;
      terms[to + 4] = y * x;
      terms[to + 5] = x * x;
    }
  }
  return terms;
}

const square = (value) =>
  Array.from({ length: TERMS }, (_, row) => Float64Array.from({ length: TERMS }, (__, column) => value(row, column)));

/** Takes the paper anew, and keeps the sums of the normal equations up to date; whether it changed. */
function hasChanged(sums, paper, terms, planes, off, limit) {
  let isChanged = false;
  for (let at = 0; at < paper.length; at++) {
    const sign = (off[at] <= limit ? 1 : 0) - paper[at];
    paper[at] += sign;
    for (let row = 0; row < TERMS && sign; row++) {
      const term = sign * terms[at * TERMS + row];
      const line = sums.square[row];
      for (let column = 0; column <= row; column++) line[column] += term * terms[at * TERMS + column];
      for (let channel = 0; channel < planes.length; channel++) sums.right[channel][row] += term * planes[channel][at];
      isChanged = true;
    }
  }
  return isChanged;
}

/** The coefficients [channels][6] of least squares, the least ones where many fit. */
function solved(sums) {
  const matrix = square((row, column) => sums.square[Math.max(row, column)][Math.min(row, column)]);
  const vectors = square((row, column) => +(row === column));
  for (let turn = 0, still = 0; turn < 400 && still < TERMS * TERMS; turn++, still++) { // Jacobi's rotations
    const [p, q] = [Math.floor(turn / TERMS) % TERMS, turn % TERMS];
    if (p >= q || matrix[p][q] ** 2 <= 1e-36 * matrix[p][p] * matrix[q][q]) continue;
    still = 0;
    const angle = 0.5 * Math.atan2(2 * matrix[p][q], matrix[q][q] - matrix[p][p]);
    const [cosine, sine] = [Math.cos(angle), Math.sin(angle)];
    const rotate = (first, second, at, to) => {
      const [one, other] = [first[at], second[to]];
      first[at] = cosine * one - sine * other;
      second[to] = sine * one + cosine * other;
    };
    for (let term = 0; term < TERMS; term++) rotate(matrix[term], matrix[term], p, q);
    for (let term = 0; term < TERMS; term++) {
      rotate(matrix[p], matrix[q], term, term);
      rotate(vectors[p], vectors[q], term, term);
    }
  }
  const values = matrix.map((row, at) => row[at]);
  return sums.right.map((right) => {
    const fit = new Float64Array(TERMS);
    vectors.forEach((vector, number) => {
      if (values[number] <= most(values) * TERMS * Number.EPSILON) return;
      const along = vector.reduce((total, each, term) => total + each * right[term], 0) / values[number];
      for (let term = 0; term < TERMS; term++) fit[term] += vector[term] * along;
    });
    return fit;
  });
}

/** The light of each pixel, float64. */
function evaluated(terms, [a, b, c, d, e, f]) {
  const light = new Float64Array(terms.length / TERMS);
  for (let at = 0, term = 0; at < light.length; at++, term += TERMS) {
    const first = terms[term] * a + terms[term + 1] * b + terms[term + 2] * c;
    light[at] = first + terms[term + 3] * d + terms[term + 4] * e + terms[term + 5] * f;
  }
  return light;
}

/** The light of each pixel, float32, with the roundings of OpenBLAS: one for a product and its sum. */
function ground(terms, [a, b, c, d, e, f]) {
  const light = new Float32Array(terms.length / TERMS);
  for (let at = 0, term = 0; at < light.length; at++, term += TERMS) {
    const first = f32(f32(a + terms[term + 1] * b) + terms[term + 2] * c);
    light[at] = f32(f32(first + terms[term + 3] * d) + terms[term + 4] * e) + terms[term + 5] * f;
  }
  return light;
}
