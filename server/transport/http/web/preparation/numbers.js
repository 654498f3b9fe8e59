// NumPy's arithmetic of float32 arrays, to the bit.

export const f32 = Math.fround;
const lanes = [new Float32Array(8), new Float64Array(8)]; // they round what is stored

/** A number rounded to a whole one, half to even. */
export function rounded(value) {
  const floor = Math.floor(value);
  const rest = value - floor;
  return rest > 0.5 || (rest === 0.5 && floor % 2 !== 0) ? floor + 1 : floor;
}

/** The largest of a list of numbers of 0 and more; 0 of none. */
export const most = (list) => list.reduce((one, other) => Math.max(one, other), 0);

/** The same of a typed array. */
export function largest(values) {
  let found = 0;
  for (let at = 0; at < values.length; at++) found = values[at] > found ? values[at] : found;
  return found;
}

/** How many values are a number at most. */
export function countUpTo(values, limit) {
  let count = 0;
  for (let at = 0; at < values.length; at++) count += values[at] <= limit ? 1 : 0;
  return count;
}

/** The sum as NumPy adds: in pairs of blocks, each addition rounded to the array's type. */
export function sum(values, from = 0, count = values.length) {
  const isSingle = values instanceof Float32Array;
  if (count > 128) {
    const half = (count >> 1) - ((count >> 1) % 8);
    const total = sum(values, from, half) + sum(values, from + half, count - half);
    return isSingle ? f32(total) : total;
  }
  const whole = from + count - (count % 8);
  const sums = lanes[isSingle ? 0 : 1].fill(0);
  for (let at = from; at < whole; at += 8) {
    for (let lane = 0; lane < 8; lane++) sums[lane] += values[at + lane];
  }
  for (let step = 1; step < 8; step *= 2) {
    for (let lane = 0; lane < 8; lane += 2 * step) sums[lane] += sums[lane + step];
  }
  for (let at = whole; at < from + count; at++) sums[0] += values[at];
  return sums[0];
}

/** The values at `rank` and after it in sorted order, of values of 0 and more. */
function ranked(values, rank) {
  if (rank + 1 < countUpTo(values, 0)) return [0, 0];
  const sorted = values.slice().sort();
  return [sorted[rank], sorted[Math.min(rank + 1, sorted.length - 1)]];
}

export function median(values) {
  const half = values.length / 2;
  const [low, high] = ranked(values, Math.ceil(half) - 1);
  const mean = half % 1 ? low : (low + high) / 2;
  return values instanceof Float32Array ? f32(mean) : mean;
}

/** The value below which a share of float32 lies. */
export function percentile(values, share) {
  const position = (values.length - 1) * share;
  const part = position % 1;
  const [low, high] = ranked(values, Math.floor(position));
  const step = f32(high - low);
  return part >= 0.5 ? f32(high - f32(step * f32(1 - part))) : f32(low + f32(step * f32(part)));
}
