// The lines of ruled and squared paper, removed from distances from the paper.

import { largest } from "./statistics.js";

const f32 = Math.fround;
const MIN_COVERAGE = 0.9; // of a row: a line reaches from edge to edge
const MAX_THICKNESS = 0.03; // of the picture's side
const MIN_STRENGTH = f32(0.15); // of the strongest ink: fainter lines are harmless

/**
 * Returns distances from the paper without lines from edge to edge. Where ink crosses a line, on both
 * of its sides, it stays. One line alone is no ruling: it may be a stroke.
 */
export function withoutRuling(distance) {
  const { values, width, height } = distance;
  const threshold = f32(MIN_STRENGTH * largest(values));
  const [rows, columns] = [new Uint32Array(height), new Uint32Array(width)];
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      if (values[y * width + x] > threshold) {
        rows[y]++;
        columns[x]++;
      }
    }
  }
  const [across, down] = [bands(rows, width), bands(columns, height)];
  if (across.length + down.length < 2) {
    return distance;
  }
  const plain = values.slice();
  inpaint(plain, across, height, width, width, 1);
  inpaint(plain, down, width, height, 1, width);
  return largest(plain) > threshold ? { values: plain, width, height } : distance;
}

/** Returns the thin bands of rows that are covered: the rows before and behind each. */
function bands(counts, length) {
  const maxThickness = Math.max(1, MAX_THICKNESS * counts.length);
  const found = [];
  for (let at = 0; at < counts.length; at++) {
    const start = at;
    while (at < counts.length && counts[at] / length >= MIN_COVERAGE) {
      at++;
    }
    if (at > start && at - start <= maxThickness) {
      found.push([start - 2, at + 1]); // a row more on either side: a line's soft edge
    }
  }
  return found;
}

/** Gives bands of rows the lesser of what lies on both sides, as it was before any was changed. */
function inpaint(values, found, rows, length, rowStep, step) {
  const before = values.slice();
  for (const [above, below] of found) {
    for (let x = 0; x < length; x++) {
      const high = above >= 0 ? before[above * rowStep + x * step] : 0;
      const low = below < rows ? before[below * rowStep + x * step] : 0;
      for (let row = Math.max(above + 1, 0); row < Math.min(below, rows); row++) {
        values[row * rowStep + x * step] = Math.min(high, low);
      }
    }
  }
}
