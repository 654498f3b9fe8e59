// Grids {values: typed array [h * w], w, h}: masks of 0 and 1, planes, ink. Boxes [top, left, bottom, right],
// the last two exclusive.

export function maskOf(w, h, holds) {
  const values = new Uint8Array(w * h);
  for (let at = 0; at < values.length; at++) values[at] = holds(at) ? 1 : 0;
  return { values, w, h };
}

/** The mask of what is more than a number. */
export function above({ values, w, h }, limit) {
  const threshold = Math.fround(limit);
  const mask = new Uint8Array(w * h);
  for (let at = 0; at < mask.length; at++) mask[at] = values[at] > threshold ? 1 : 0;
  return { values: mask, w, h };
}

const kept = {}; // to select into: new memory takes longer than what is done with it

/** The values where a mask is 1, until the next call. */
export function selected(values, mask) {
  const Values = values.constructor;
  if (!(kept[Values.name]?.length >= values.length)) kept[Values.name] = new Values(values.length);
  const found = kept[Values.name];
  let count = 0;
  for (let at = 0; at < values.length; at++) {
    if (mask[at] === 1) found[count++] = values[at];
  }
  return found.subarray(0, count);
}

export const sizeOf = ([top, left, bottom, right]) => ({ w: right - left, h: bottom - top });

/** A box of a grid. */
export function cropped({ values, w }, box) {
  const [top, left, bottom, right] = box;
  const result = new values.constructor((right - left) * (bottom - top));
  for (let y = top; y < bottom; y++) result.set(values.subarray(y * w + left, y * w + right), (y - top) * (right - left));
  return { values: result, ...sizeOf(box) };
}

/** The box of what is more than a number. */
export function boxOf({ values, w, h }, limit) {
  let [top, left, bottom, right] = [h, w, 0, 0];
  for (let y = 0, at = 0; y < h; y++) {
    for (let x = 0; x < w; x++) {
      if (!(values[at++] > limit)) continue;
      top = Math.min(top, y);
      left = Math.min(left, x);
      bottom = y + 1;
      right = Math.max(right, x + 1);
    }
  }
  return [top, left, bottom, right];
}

const shrunk = (w, factor) => (at) =>
  Math.floor(Math.floor(at / w) / factor) * Math.ceil(w / factor) + Math.floor((at % w) / factor);

/** A grid of fewer pixels, each the largest of `factor` by `factor`. */
export function pooled({ values, w, h }, factor) {
  const size = { w: Math.ceil(w / factor), h: Math.ceil(h / factor) };
  const result = new values.constructor(size.w * size.h);
  const to = shrunk(w, factor);
  for (let at = 0; at < values.length; at++) result[to(at)] = Math.max(result[to(at)], values[at]);
  return { values: result, ...size };
}

/** A pooled mask at the size that it was pooled from. */
export function upsampled(mask, factor, { w, h }) {
  const from = shrunk(w, factor);
  return factor === 1 ? mask : maskOf(w, h, (at) => mask.values[from(at)]);
}

/** A mask dilated by pixels on every side. */
export function dilated(mask, pixels) {
  const { w, h } = mask;
  if (!mask.values.includes(1)) return mask;
  const widened = (source, lines, lineStep, length, step) => {
    const target = new Uint8Array(w * h);
    for (let line = 0; line < lines; line++) {
      const from = line * lineStep;
      for (let at = 0, done = 0; at < length; at++) {
        if (!source[from + at * step]) continue;
        const end = Math.min(at + pixels + 1, length);
        for (let to = Math.max(done, at - pixels); to < end; to++) target[from + to * step] = 1;
        done = end;
      }
    }
    return target;
  };
  return { values: widened(widened(mask.values, h, w, w, 1), w, 1, h, w), w, h };
}
