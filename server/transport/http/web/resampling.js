// Pillow's resampling (Resample.c): the same weights, in the same order of additions.

const box = { support: 0.5, weight: (x) => (x > -0.5 && x <= 0.5 ? 1 : 0) };
const bilinear = { support: 1, weight: (x) => Math.max(1 - Math.abs(x), 0) };
const BYTE_PRECISION = 2 ** 22; // weights for bytes are whole multiples of 1 / BYTE_PRECISION

function weightsOf(filter, size, newSize, isBytes) {
  const scale = size / newSize;
  const stretch = Math.max(scale, 1);
  const support = filter.support * stretch;
  const inverse = 1 / stretch;
  const taps = Math.ceil(support) * 2 + 1;
  const first = new Int32Array(newSize);
  const counts = new Int32Array(newSize);
  const weights = new Float64Array(newSize * taps);
  for (let at = 0; at < newSize; at++) {
    const center = (at + 0.5) * scale;
    const start = Math.max(Math.trunc(center - support + 0.5), 0);
    const count = Math.min(Math.trunc(center + support + 0.5), size) - start;
    let total = 0;
    for (let x = 0; x < count; x++) {
      const weight = filter.weight((x + start - center + 0.5) * inverse);
      weights[at * taps + x] = weight;
      total += weight;
    }
    for (let x = 0; x < count; x++) {
      const weight = total === 0 ? weights[at * taps + x] : weights[at * taps + x] / total;
      weights[at * taps + x] = isBytes ? Math.floor(0.5 + weight * BYTE_PRECISION) / BYTE_PRECISION : weight;
    }
    first[at] = start;
    counts[at] = count;
  }
  return { first, counts, weights, taps };
}

function alongRows(plane, width, height, newWidth, filter) {
  const isBytes = plane instanceof Uint8Array;
  const { first, counts, weights, taps } = weightsOf(filter, width, newWidth, isBytes);
  const result = new plane.constructor(newWidth * height);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < newWidth; x++) {
      let total = isBytes ? 0.5 : 0;
      const from = y * width + first[x];
      for (let tap = 0; tap < counts[x]; tap++) {
        total += plane[from + tap] * weights[x * taps + tap];
      }
      result[y * newWidth + x] = isBytes ? Math.min(total, 255) : total;
    }
  }
  return result;
}

function alongColumns(plane, width, height, newHeight, filter) {
  const isBytes = plane instanceof Uint8Array;
  const { first, counts, weights, taps } = weightsOf(filter, height, newHeight, isBytes);
  const result = new plane.constructor(width * newHeight);
  const totals = new Float64Array(width);
  for (let y = 0; y < newHeight; y++) {
    totals.fill(isBytes ? 0.5 : 0);
    for (let tap = 0; tap < counts[y]; tap++) {
      const weight = weights[y * taps + tap];
      const from = (first[y] + tap) * width;
      for (let x = 0; x < width; x++) {
        totals[x] += plane[from + x] * weight;
      }
    }
    for (let x = 0; x < width; x++) {
      result[y * width + x] = isBytes ? Math.min(totals[x], 255) : totals[x];
    }
  }
  return result;
}

/**
 * Returns a plane of another size: of means where it gets smaller, for `isSmooth` interpolated.
 * @param {Float32Array|Uint8Array} plane [height * width]
 * @returns {Float32Array|Uint8Array} [newHeight * newWidth]
 */
export function resampled(plane, width, height, newWidth, newHeight, isSmooth = false) {
  const filter = isSmooth ? bilinear : box;
  const rows = (source, tall) => (newWidth === width ? source : alongRows(source, width, tall, newWidth, filter));
  const columns = (source, wide) =>
    newHeight === height ? source : alongColumns(source, wide, height, newHeight, filter);
  if (height > width * 100 && newHeight < height) {
    return rows(columns(plane, width), newHeight); // Pillow takes this order for such shapes
  }
  return columns(rows(plane, height), newWidth);
}

/** Returns the pixels [old position] that stand for `newSize` ones, the nearest of each. */
export function nearest(size, newSize) {
  const step = size / newSize;
  const found = new Int32Array(newSize);
  let at = step * 0.5;
  for (let x = 0; x < newSize; x++) {
    found[x] = Math.min(Math.trunc(at), size - 1);
    at += step;
  }
  return found;
}
