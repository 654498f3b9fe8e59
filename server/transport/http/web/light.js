// Light on paper: how far each pixel is from the paper's colour, which may vary over the sheet.

import { median8, quantised } from "./filters.js";
import { SAME_COLOR, borderColor, farthest, reduced } from "./paper.js";
import { resampled } from "./resampling.js";
import { largest } from "./statistics.js";

const f32 = Math.fround;
const FIT_PIXELS = 64 * 64; // enough for six coefficients
const TERMS = 6; // of a quadratic function of the place: 1, y, x, yy, yx, xx
const LOCAL_SIDE = 32; // pixels of the picture of the light alone; strokes are gone in its median
const LOCAL_WINDOW = 17; // of them: more than half of a window must be paper
const MIN_GAIN = 1.05; // times the pixels that an even colour explains; a gradient must explain more
const MIN_LIGHT = f32(0.3); // of the full range: darker paper is not shaded, but dark
const MIN_SHADE = f32(0.4); // of the paper's light: a shadow is no darker

/**
 * Returns how far each pixel is from the paper, in its most telling channel. The paper's colour may vary
 * smoothly over the sheet, as light does; with `isLocal` also as abruptly as a shadow's edge. Where smooth
 * light is less, ink is as dark for its paper as elsewhere, so its distance counts for more.
 */
export function distanceFromPaper(picture, isLocal) {
  const { width, height } = picture;
  const ground = isLocal ? localPaper(picture) : smoothPaper(picture);
  const values = farthest(picture.planes, ground);
  if (!isLocal && typeof ground[0] !== "number") {
    const light = farthest(ground, ground.map(() => 0));
    const most = largest(light);
    const least = f32(MIN_SHADE * most);
    if (most >= MIN_LIGHT) {
      for (let at = 0; at < values.length; at++) {
        values[at] *= f32(most / Math.max(light[at], least));
      }
    }
  }
  return { values, width, height };
}

/** Returns the paper's colour as the median of a large window around each place, a plane for each channel. */
function localPaper({ planes, width, height }) {
  return planes.map((plane) => {
    const levels = quantised(resampled(plane, width, height, LOCAL_SIDE, LOCAL_SIDE));
    const light = Float32Array.from(median8(levels, LOCAL_SIDE, LOCAL_SIDE, LOCAL_WINDOW), (level) => level / 255);
    return resampled(light, LOCAL_SIDE, LOCAL_SIDE, width, height, true);
  });
}

/**
 * Returns the paper's colour, a quadratic function of the place, fitted where there is no ink: a plane for
 * each channel, or a number if one colour explains as much. The fit starts from the colour of the border;
 * what is far from it does not count for the next one.
 */
function smoothPaper(picture) {
  const coarse = reduced(picture, FIT_PIXELS);
  const constant = borderColor(coarse);
  if (Math.min(coarse.width, coarse.height) < 8) {
    return constant; // too few pixels for more than one colour
  }
  const terms = quadratic(coarse.width, coarse.height);
  let off = farthest(coarse.planes, constant);
  const evenly = countUpTo(off, f32(SAME_COLOR));
  const count = off.length;
  let tolerance = 0.5 * largest(off);
  let limit = f32(tolerance);
  const sums = newSums(coarse.planes.length);
  const paper = new Uint8Array(count);
  let light = null;
  for (let round = 0; round < 8; round++) {
    if (updateSums(sums, paper, terms, coarse.planes, off, limit) || !light) {
      sums.fit = solved(sums);
      light = sums.fit.map((fit) => evaluated(terms, fit));
      off = farthest64(coarse.planes, light);
    }
    const least = Math.max(0.02, 0.6 * tolerance);
    const usual = 4 * medianUnless(off, paper, least / 4);
    limit = tolerance = Math.max(least, Math.min(tolerance, usual));
  }
  if (goesTooFar(coarse.planes, light, paper) || countUpTo(off, SAME_COLOR) < MIN_GAIN * evenly) {
    return constant;
  }
  return ground(picture, sums.fit);
}

function countUpTo(values, limit) {
  return values.reduce((total, value) => total + (value <= limit ? 1 : 0), 0);
}

/** Returns 1, y, x, yy, yx and xx of each pixel, y and x from -1 to 1, [pixels * 6], float32. */
function quadratic(width, height) {
  const places = (size) =>
    Float32Array.from({ length: size }, (_, at) => (at === size - 1 ? 1 : at * (2 / (size - 1)) - 1));
  const [rows, columns] = [places(height), places(width)];
  const terms = new Float32Array(width * height * TERMS);
  let to = 0;
  for (let row = 0; row < height; row++) {
    const y = rows[row];
    for (let column = 0; column < width; column++) {
      const x = columns[column];
      terms[to] = 1;
      terms[to + 1] = y;
      terms[to + 2] = x;
      terms[to + 3] = y * y;
      terms[to + 4] = y * x;
      terms[to + 5] = x * x;
      to += TERMS;
    }
  }
  return terms;
}

/** The sums of the normal equations: `square` of terms by terms, `right` of terms by each channel. */
function newSums(channels) {
  return {
    square: new Float64Array(TERMS * TERMS),
    right: Array.from({ length: channels }, () => new Float64Array(TERMS)),
  };
}

/** Adds the pixels that became paper and takes those that are none any more; returns whether any did. */
function updateSums({ square, right }, paper, terms, planes, off, limit) {
  let isChanged = false;
  for (let at = 0; at < paper.length; at++) {
    const is = off[at] <= limit ? 1 : 0;
    if (is === paper[at]) {
      continue;
    }
    const sign = is - paper[at];
    paper[at] = is;
    isChanged = true;
    for (let one = 0; one < TERMS; one++) {
      const term = sign * terms[at * TERMS + one];
      for (let other = 0; other < TERMS; other++) {
        square[one * TERMS + other] += term * terms[at * TERMS + other];
      }
      for (let channel = 0; channel < right.length; channel++) {
        right[channel][one] += term * planes[channel][at];
      }
    }
  }
  return isChanged;
}

/** Returns the coefficients [channels][6] of least squares, the least ones where many fit. */
function solved({ square, right }) {
  const { values, vectors } = eigen(square);
  const least = largest(values) * TERMS * Number.EPSILON;
  return right.map((sums) => {
    const fit = new Float64Array(TERMS);
    vectors.forEach((vector, number) => {
      const along = vector.reduce((total, each, term) => total + each * sums[term], 0);
      for (let term = 0; term < TERMS && values[number] > least; term++) {
        fit[term] += (vector[term] * along) / values[number];
      }
    });
    return fit;
  });
}

/** Returns the eigenvalues and eigenvectors of a symmetric matrix, by Jacobi's rotations. */
function eigen(square) {
  const matrix = square.slice();
  const vectors = Array.from({ length: TERMS }, (_, at) => Float64Array.from({ length: TERMS }, (_, to) => +(at === to)));
  const at = (row, column) => row * TERMS + column;
  for (let sweep = 0; sweep < 30; sweep++) {
    let isDone = true;
    for (let p = 0; p < TERMS; p++) {
      for (let q = p + 1; q < TERMS; q++) {
        const off = matrix[at(p, q)];
        const [one, other] = [matrix[at(p, p)], matrix[at(q, q)]];
        if (Math.abs(off) <= 1e-18 * Math.sqrt(Math.abs(one * other))) {
          continue;
        }
        isDone = false;
        const slope = (other - one) / (2 * off);
        const tangent = (slope < 0 ? -1 : 1) / (Math.abs(slope) + Math.hypot(slope, 1));
        const cosine = 1 / Math.hypot(tangent, 1);
        const sine = tangent * cosine;
        const rotate = (values, first, second) => {
          const [a, b] = [values[first], values[second]];
          values[first] = cosine * a - sine * b;
          values[second] = sine * a + cosine * b;
        };
        for (let term = 0; term < TERMS; term++) {
          rotate(matrix, at(term, p), at(term, q));
        }
        for (let term = 0; term < TERMS; term++) {
          rotate(matrix, at(p, term), at(q, term));
          const pair = [vectors[p][term], vectors[q][term]];
          rotate(pair, 0, 1);
          [vectors[p][term], vectors[q][term]] = pair;
        }
        matrix[at(p, q)] = matrix[at(q, p)] = 0;
      }
    }
    if (isDone) {
      break;
    }
  }
  return { values: vectors.map((_, each) => matrix[at(each, each)]), vectors };
}

/** Returns the light of each pixel, float64. */
function evaluated(terms, fit) {
  const light = new Float64Array(terms.length / TERMS);
  for (let at = 0; at < light.length; at++) {
    for (let term = 0; term < TERMS; term++) {
      light[at] += terms[at * TERMS + term] * fit[term];
    }
  }
  return light;
}

function farthest64(planes, light) {
  const off = new Float64Array(planes[0].length);
  planes.forEach((plane, channel) => {
    for (let at = 0; at < off.length; at++) {
      off[at] = Math.max(off[at], Math.abs(plane[at] - light[channel][at]));
    }
  });
  return off;
}

/** Returns the median of what is off the fit on paper, or any less number where it is no more than `least`. */
function medianUnless(off, paper, least) {
  const values = off.filter((_, at) => paper[at]);
  if (countUpTo(values, least) > values.length / 2) {
    return 0;
  }
  values.sort();
  const half = values.length >> 1;
  return values.length % 2 ? values[half] : (values[half - 1] + values[half]) / 2;
}

/** Returns whether the fit has light that no pixel of the paper shows. */
function goesTooFar(planes, light, paper) {
  return planes.some((plane, channel) => {
    const seen = plane.filter((_, at) => paper[at]);
    const low = f32(seen.reduce((least, value) => Math.min(least, value)) - f32(SAME_COLOR));
    const high = f32(largest(seen) + f32(SAME_COLOR));
    return light[channel].some((value) => value < low || value > high);
  });
}

/** Returns the fitted light of each pixel of a picture, with the roundings of OpenBLAS's products. */
function ground({ planes, width, height, isGray }, fit) {
  const terms = quadratic(width, height);
  return planes.map((_, channel) => {
    const factors = Float32Array.from(fit[channel]);
    const light = new Float32Array(width * height);
    for (let at = 0; at < light.length; at++) {
      let total = 0;
      for (let term = 0; term < TERMS; term++) {
        total = f32(total + terms[at * TERMS + term] * factors[term]); // one rounding: multiplied and added
      }
      light[at] = total;
    }
    return light;
  });
}
