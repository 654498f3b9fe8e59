// The lines of ruled and squared paper, removed from distances from the paper.

import { f32, largest } from "./numbers.js";

const MIN_COVERAGE = 0.9;
const MAX_THICKNESS = 0.03;
const MIN_STRENGTH = f32(0.15);

/** Distances without lines from edge to edge, if there are two or more. */
export function withoutRuling(distance) {
  const { values, w, h } = distance;
  const threshold = f32(MIN_STRENGTH * largest(values));
  const [rows, columns] = [new Uint32Array(h), new Uint32Array(w)];
  for (let y = 0, at = 0; y < h; y++) {
    for (let x = 0; x < w; x++) {
      const is = values[at++] > threshold ? 1 : 0;
      rows[y] += is;
      columns[x] += is;
    }
  }
  const [across, down] = [bands(rows, w), bands(columns, h)];
  if (across.length + down.length < 2) return distance;
  const plain = inpainted(inpainted(values, across, h, w, w, 1), down, w, h, 1, w);
  return largest(plain) > threshold ? { values: plain, w, h } : distance;
}

/** The thin bands of rows that are covered: the rows before and behind each. */
function bands(counts, length) {
  const found = [];
  for (let at = 0; at < counts.length; at++) {
    const start = at;
    while (at < counts.length && counts[at] / length >= MIN_COVERAGE) at++;
    if (at > start && at - start <= Math.max(1, MAX_THICKNESS * counts.length)) found.push([start - 2, at + 1]);
  }
  return found;
}

/** Values whose bands of rows, or columns by the steps, have the lesser of what lies on both sides. */
function inpainted(values, found, rows, length, rowStep, step) {
  const result = values.slice();
  for (const [above, below] of found) {
    for (let x = 0; x < length; x++) {
      const side = (row) => (row >= 0 && row < rows ? values[row * rowStep + x * step] : 0);
      for (let row = Math.max(above + 1, 0); row < Math.min(below, rows); row++) {
        result[row * rowStep + x * step] = Math.min(side(above), side(below));
      }
    }
  }
  return result;
}
