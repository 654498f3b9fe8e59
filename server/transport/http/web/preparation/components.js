// The connected parts of a mask (components.py).

import { cropped, maskOf } from "./grids.js";

/**
 * Returns the parts of a mask, pixels joined along edges and corners, numbered by their first pixel:
 * `labels` Int32Array [height * width], -1 outside; of each part its `areas`, `boxes` [top, left, bottom,
 * right], the last two exclusive, `heights`, `widths` and `longer` side.
 */
export function label({ values, width, height }) {
  const [starts, ends, rows, parents] = runsOf(values, width, height);
  const numbers = [];
  const [areas, boxes] = [[], []];
  const labels = new Int32Array(values.length).fill(-1);
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
    labels.fill(number, row * width + start, row * width + end);
  }
  const heights = boxes.map(([top, , bottom]) => bottom - top);
  const widths = boxes.map(([, left, , right]) => right - left);
  const longer = heights.map((side, number) => Math.max(side, widths[number]));
  return { labels, width, height, areas, boxes, heights, widths, longer };
}

/** Returns the runs of pixels in rows: starts, ends, rows, and an earlier run each is joined with. */
function runsOf(values, width, height) {
  const [starts, ends, rows, parents] = [[], [], [], []];
  let [above, aboveEnd] = [0, 0];
  for (let row = 0; row < height; row++) {
    const first = starts.length;
    for (let x = 0; x < width; x++) {
      const start = x;
      while (x < width && values[row * width + x]) x++;
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

/** Returns the share of the top, left, bottom and right edge that each part covers, [parts][4]. */
export function contactOf({ labels, boxes, width, height }) {
  const contact = boxes.map(() => [0, 0, 0, 0]);
  const count = (at, edge) => labels[at] >= 0 && contact[labels[at]][edge]++;
  for (let x = 0; x < width; x++) {
    count(x, 0);
    count(labels.length - 1 - x, 2);
  }
  for (let at = 0; at < labels.length; at += width) {
    count(at, 1);
    count(at + width - 1, 3);
  }
  return contact.map((shares) => shares.map((pixels, edge) => pixels / (edge % 2 ? height : width)));
}

/** Returns where the chosen parts are. */
export function maskOfParts({ labels, width, height }, chosen) {
  const isChosen = Uint8Array.from([0, ...chosen]);
  const values = new Uint8Array(labels.length);
  for (let at = 0; at < values.length; at++) values[at] = isChosen[labels[at] + 1];
  return { values, width, height };
}

/** Returns the mask of one part within its box. */
export function maskOfPart({ labels, width, boxes, widths, heights }, number) {
  const within = cropped(labels, width, boxes[number]);
  return maskOf(widths[number], heights[number], (at) => within[at] === number);
}

/** Returns a mask with the pixels that it encloses. */
export function withHoles({ values, width, height }) {
  const free = label(maskOf(width, height, (at) => !values[at]));
  const isOutside = free.boxes.map(
    ([top, left, bottom, right]) => top === 0 || left === 0 || bottom === height || right === width,
  );
  return maskOf(width, height, (at) => values[at] || !isOutside[free.labels[at]]);
}
