// Grids {values: typed array [height * width], width, height}: masks of 0 and 1, planes, ink.

/** Returns the mask of where `holds(position)`. */
export function maskOf(width, height, holds) {
  const values = new Uint8Array(width * height);
  for (let at = 0; at < values.length; at++) values[at] = holds(at) ? 1 : 0;
  return { values, width, height };
}

/** Returns the mask of where values are above a number. */
export function above({ values, width, height }, limit) {
  const threshold = Math.fround(limit);
  const mask = new Uint8Array(values.length);
  for (let at = 0; at < mask.length; at++) mask[at] = values[at] > threshold ? 1 : 0;
  return { values: mask, width, height };
}

const kept = new Map(); // to select into: new memory takes longer than what is done with it

/** Returns the values where a mask is not 0, until the next call. */
export function selected(values, mask) {
  const Values = values.constructor;
  if (!(kept.get(Values)?.length >= values.length)) kept.set(Values, new Values(values.length));
  const found = kept.get(Values);
  let count = 0;
  for (let at = 0; at < values.length; at++) {
    if (mask[at] !== 0) found[count++] = values[at];
  }
  return found.subarray(0, count);
}

/** Returns the values of a box [top, left, bottom, right], the last two exclusive, of a grid `width` wide. */
export function cropped(values, width, [top, left, bottom, right]) {
  const result = new values.constructor((right - left) * (bottom - top));
  for (let y = top; y < bottom; y++) {
    result.set(values.subarray(y * width + left, y * width + right), (y - top) * (right - left));
  }
  return result;
}

/** Returns the box of where values are above a number, as `cropped` takes it. */
export function boxOf({ values, width, height }, limit) {
  let [top, left, bottom, right] = [height, width, 0, 0];
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      if (values[y * width + x] > limit) {
        top = Math.min(top, y);
        left = Math.min(left, x);
        bottom = y + 1;
        right = Math.max(right, x + 1);
      }
    }
  }
  return [top, left, bottom, right];
}

const shrunk = (width, factor) => (at) =>
  Math.floor(Math.floor(at / width) / factor) * Math.ceil(width / factor) + Math.floor((at % width) / factor);

/** Returns a grid of fewer pixels, each the largest of `factor` by `factor`. */
export function pooled({ values, width, height }, factor) {
  const size = { width: Math.ceil(width / factor), height: Math.ceil(height / factor) };
  const result = new values.constructor(size.width * size.height);
  const to = shrunk(width, factor);
  for (let at = 0; at < values.length; at++) result[to(at)] = Math.max(result[to(at)], values[at]);
  return { values: result, ...size };
}

/** Returns a pooled mask at the size that it was pooled from. */
export function upsampled(mask, factor, { width, height }) {
  const from = shrunk(width, factor);
  return factor === 1 ? mask : maskOf(width, height, (at) => mask.values[from(at)]);
}

/** Returns a mask dilated by pixels on every side. */
export function dilated(mask, pixels) {
  const { values, width, height } = mask;
  if (!values.includes(1)) return mask;
  const across = new Uint8Array(values.length);
  const both = new Uint8Array(values.length);
  for (let y = 0; y < height; y++) dilate(values, across, y * width, 1, width, pixels);
  for (let x = 0; x < width; x++) dilate(across, both, x, width, height, pixels);
  return { values: both, width, height };
}

function dilate(source, target, from, step, length, pixels) {
  let done = 0; // up to which the target is known
  for (let at = 0, place = from; at < length; at++, place += step) {
    if (source[place]) {
      const end = Math.min(at + pixels + 1, length);
      for (let to = Math.max(done, at - pixels); to < end; to++) target[from + to * step] = 1;
      done = end;
    }
  }
}
