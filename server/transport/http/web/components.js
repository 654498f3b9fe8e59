// The connected parts of a mask: where each lies, how large it is, which edges it follows.
// A mask is {values: Uint8Array [height * width] of 0 and 1, width, height}.

/** Returns a mask of a size, by what a function tells of each position. */
export function maskOf(width, height, holds) {
  const values = new Uint8Array(width * height);
  for (let at = 0; at < values.length; at++) {
    values[at] = holds(at) ? 1 : 0;
  }
  return { values, width, height };
}

/**
 * Returns the parts of a mask, pixels joined along edges and corners, numbered by their first pixel.
 * @returns {{labels: Int32Array, areas: number[], boxes: number[][], heights: number[], widths: number[],
 *   longer: number[], count: number, width: number, height: number}} `labels` is -1 outside the mask;
 *   a box is [top, left, bottom, right], all inclusive; `longer` is the longer side of each.
 */
export function label({ values, width, height }) {
  const runs = runsOf(values, width, height);
  const parts = { areas: [], boxes: [], width, height };
  const numbers = new Int32Array(runs.parents.length);
  parts.labels = new Int32Array(width * height).fill(-1);
  runs.parents.forEach((_, run) => {
    const root = rootOf(runs.parents, run);
    const row = runs.rows[run];
    const [start, end] = [runs.starts[run], runs.ends[run]];
    if (root === run) {
      numbers[run] = parts.areas.length;
      parts.areas.push(0);
      parts.boxes.push([row, start, row, end - 1]);
    }
    const number = (numbers[run] = numbers[root]);
    const box = parts.boxes[number];
    parts.areas[number] += end - start;
    box[1] = Math.min(box[1], start);
    box[2] = row;
    box[3] = Math.max(box[3], end - 1);
    parts.labels.fill(number, row * width + start, row * width + end);
  });
  parts.count = parts.areas.length;
  parts.heights = parts.boxes.map(([top, , bottom]) => bottom - top + 1);
  parts.widths = parts.boxes.map(([, left, , right]) => right - left + 1);
  parts.longer = parts.heights.map((side, number) => Math.max(side, parts.widths[number]));
  return parts;
}

/** Returns the runs of pixels in rows, each with the least run that it is joined with. */
function runsOf(values, width, height) {
  const [starts, ends, rows, parents] = [[], [], [], []];
  let above = 0;
  let aboveEnd = 0;
  for (let row = 0; row < height; row++) {
    const first = starts.length;
    for (let x = 0; x < width; x++) {
      if (!values[row * width + x]) {
        continue;
      }
      const start = x;
      while (x < width && values[row * width + x]) {
        x++;
      }
      const run = parents.length;
      starts.push(start);
      ends.push(x);
      rows.push(row);
      parents.push(run);
      while (above < aboveEnd && ends[above] < start) {
        above++;
      }
      for (let other = above; other < aboveEnd && starts[other] <= x; other++) {
        const [one, two] = [rootOf(parents, other), rootOf(parents, run)];
        parents[Math.max(one, two)] = Math.min(one, two);
      }
    }
    [above, aboveEnd] = [first, starts.length];
  }
  return { starts, ends, rows, parents };
}

function rootOf(parents, run) {
  while (parents[run] !== run) {
    parents[run] = parents[parents[run]];
    run = parents[run];
  }
  return run;
}

/** Returns the share of the top, left, bottom and right edge that each part covers, [parts][4]. */
export function contactOf({ labels, count, width, height }) {
  const contact = Array.from({ length: count }, () => [0, 0, 0, 0]);
  const countEdge = (edge, length, at) => {
    for (let step = 0; step < length; step++) {
      const number = labels[at(step)];
      if (number >= 0) {
        contact[number][edge]++;
      }
    }
    contact.forEach((shares) => {
      shares[edge] /= length;
    });
  };
  countEdge(0, width, (x) => x);
  countEdge(1, height, (y) => y * width);
  countEdge(2, width, (x) => (height - 1) * width + x);
  countEdge(3, height, (y) => y * width + width - 1);
  return contact;
}

/** Returns where the chosen parts are. */
export function maskOfParts({ labels, width, height }, chosen) {
  return maskOf(width, height, (at) => labels[at] >= 0 && chosen[labels[at]]);
}

/** Returns the box [top, left, bottom, right] of a mask of parts, at which a function tells of each label. */
export function cutOut({ labels, width }, [top, left, bottom, right], holds) {
  const wide = right - left + 1;
  return maskOf(wide, bottom - top + 1, (at) =>
    holds(labels[(top + Math.floor(at / wide)) * width + left + (at % wide)]),
  );
}

/** Returns the pixels outside a mask that its edge can be reached from: not those that it encloses. */
export function outsideOf({ values, width, height }) {
  const wide = width + 2;
  const free = maskOf(wide, height + 2, () => true);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      free.values[(y + 1) * wide + x + 1] = 1 - values[y * width + x];
    }
  }
  const { labels } = label(free);
  return maskOf(width, height, (at) => labels[(Math.floor(at / width) + 1) * wide + (at % width) + 1] === 0);
}
