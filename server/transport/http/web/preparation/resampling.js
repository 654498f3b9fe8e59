// Pillow's resampling (Resample.c): the same weights, added in the same order.

const BOX = { support: 0.5, weight: (x) => (x > -0.5 && x <= 0.5 ? 1 : 0) };
const BILINEAR = { support: 1, weight: (x) => Math.max(1 - Math.abs(x), 0) };
const STEPS = 2 ** 22; // of weights for bytes

/** Returns for each new pixel where its old ones start, and their weights. */
function weightsOf(filter, size, newSize, isBytes) {
  const scale = size / newSize;
  const stretch = Math.max(scale, 1);
  const support = filter.support * stretch;
  return Array.from({ length: newSize }, (_, at) => {
    const center = (at + 0.5) * scale;
    const start = Math.max(Math.trunc(center - support + 0.5), 0);
    const weights = new Float64Array(Math.min(Math.trunc(center + support + 0.5), size) - start);
    let total = 0;
    for (let x = 0; x < weights.length; x++) {
      weights[x] = filter.weight((x + start - center + 0.5) * (1 / stretch));
      total += weights[x];
    }
    for (let x = 0; x < weights.length; x++) {
      weights[x] /= total;
      weights[x] = isBytes ? Math.floor(0.5 + weights[x] * STEPS) / STEPS : weights[x];
    }
    return { start, weights };
  });
}

function alongRows(plane, width, height, newWidth, filter) {
  const isBytes = plane instanceof Uint8Array;
  const result = new plane.constructor(newWidth * height);
  const pixels = weightsOf(filter, width, newWidth, isBytes);
  for (let y = 0, to = 0; y < height; y++) {
    for (let x = 0; x < newWidth; x++) {
      const { start, weights } = pixels[x];
      let total = isBytes ? 0.5 : 0;
      for (let tap = 0, from = y * width + start; tap < weights.length; tap++) {
        total += plane[from + tap] * weights[tap];
      }
      result[to++] = isBytes ? Math.min(total, 255) : total;
    }
  }
  return result;
}

function alongColumns(plane, width, height, newHeight, filter) {
  const isBytes = plane instanceof Uint8Array;
  const result = new plane.constructor(width * newHeight);
  const totals = new Float64Array(width);
  weightsOf(filter, height, newHeight, isBytes).forEach(({ start, weights }, y) => {
    totals.fill(isBytes ? 0.5 : 0);
    for (let tap = 0; tap < weights.length; tap++) {
      const weight = weights[tap];
      for (let x = 0, from = (start + tap) * width; x < width; x++) totals[x] += plane[from + x] * weight;
    }
    for (let x = 0; x < width; x++) result[y * width + x] = isBytes ? Math.min(totals[x], 255) : totals[x];
  });
  return result;
}

/** Returns a plane (Float32Array or Uint8Array) of another size: of means, or interpolated. */
export function resampled(plane, width, height, newWidth, newHeight, isSmooth = false) {
  const filter = isSmooth ? BILINEAR : BOX;
  const rows = (from, tall) => (newWidth === width ? from : alongRows(from, width, tall, newWidth, filter));
  const columns = (from, wide) => (newHeight === height ? from : alongColumns(from, wide, height, newHeight, filter));
  const [narrower, shorter] = [width - newWidth, height - newHeight];
  return shorter > 0 && shorter > 2 * narrower // Pillow takes the cheaper order
    ? rows(columns(plane, width), newHeight)
    : columns(rows(plane, height), newWidth);
}

/** Returns the old pixel that stands for each of `newSize` ones, the nearest. */
export function nearest(size, newSize) {
  const step = size / newSize;
  let at = step * -0.5;
  return Int32Array.from({ length: newSize }, () => Math.trunc((at += step)));
}
