// The connected parts of a mask.

import { cropped, maskOf } from "./grids.js";

/**
 * The parts of a mask, pixels joined along edges and corners, numbered by their first pixel: `labels` [h * w],
 * -1 outside; of each part its `areas`, `boxes`, `heights`, `widths` and `longer` side.
 */
export function label({ values, w, h }) {
  const [starts, ends, rows, parents] = runsOf(values, w, h);
  const [areas, boxes, numbers] = [[], [], []];
  const labels = new Int32Array(w * h).fill(-1);
  for (let run = 0; run < parents.length; run++) {
    const root = rootOf(parents, run);
    const [start, end, row] = [starts[run], ends[run], rows[run]];
    if (root === run) {
      numbers[run] = areas.push(0) - 1;
      boxes.push([row, start, row, end]);
    }
    const number = (numbers[run] = numbers[root]);
    const box = boxes[number];
    areas[number] += end - start;
    box[1] = Math.min(box[1], start);
    box[2] = row + 1;
    box[3] = Math.max(box[3], end);
    labels.fill(number, row * w + start, row * w + end);
  }
  const heights = boxes.map(([top, , bottom]) => bottom - top);
  const widths = boxes.map(([, left, , right]) => right - left);
  const longer = heights.map((side, number) => Math.max(side, widths[number]));
  return { labels, w, h, areas, boxes, heights, widths, longer };
}

/** The runs of pixels in rows: starts, ends, rows, and an earlier run that each is joined with. */
function runsOf(values, w, h) {
  const [starts, ends, rows, parents] = [[], [], [], []];
  let [above, aboveEnd] = [0, 0];
  for (let row = 0; row < h; row++) {
    const first = starts.length;
    for (let x = 0; x < w; x++) {
      const start = x;
      while (x < w && values[row * w + x]) x++;
      if (x === start) continue;
      const run = parents.push(parents.length) - 1;
      starts.push(start);
      ends.push(x);
      rows.push(row);
      while (above < aboveEnd && ends[above] < start) above++;
      for (let other = above; other < aboveEnd && starts[other] <= x; other++) {
        const [one, two] = [rootOf(parents, other), rootOf(parents, run)];
        parents[Math.max(one, two)] = Math.min(one, two);
      }
    }
    [above, aboveEnd] = [first, starts.length];
  }
  return [starts, ends, rows, parents];
}

function rootOf(parents, run) {
  while (parents[run] !== run) run = parents[run] = parents[parents[run]];
  return run;
}

/** The share of the top, left, bottom and right edge that each part covers, [parts][4]. */
export function contactOf({ labels, boxes, w, h }) {
  const contact = boxes.map(() => [0, 0, 0, 0]);
  const count = (at, edge) => labels[at] >= 0 && contact[labels[at]][edge]++;
  for (let x = 0; x < w; x++) {
    count(x, 0);
    count(labels.length - 1 - x, 2);
  }
  for (let at = 0; at < labels.length; at += w) {
    count(at, 1);
    count(at + w - 1, 3);
  }
  return contact.map((shares) => shares.map((pixels, edge) => pixels / (edge % 2 ? h : w)));
}

/** The mask of the chosen parts. */
export function maskOfParts({ labels, w, h }, chosen) {
  const isChosen = Uint8Array.from([0, ...chosen]);
  const values = new Uint8Array(w * h);
  for (let at = 0; at < values.length; at++) values[at] = isChosen[labels[at] + 1];
  return { values, w, h };
}

/** The mask of one part within its box. */
export function maskOfPart({ labels, w, boxes }, number) {
  const within = cropped({ values: labels, w }, boxes[number]);
  return maskOf(within.w, within.h, (at) => within.values[at] === number);
}

/** A mask with the pixels that it encloses. */
export function withHoles({ values, w, h }) {
  const free = label(maskOf(w, h, (at) => !values[at]));
  const isOutside = free.boxes.map(([top, left, bottom, right]) => !top || !left || bottom === h || right === w);
  return maskOf(w, h, (at) => values[at] || !isOutside[free.labels[at]]);
}
