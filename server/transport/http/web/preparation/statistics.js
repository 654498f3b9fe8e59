// NumPy's sums, medians and percentiles of float32 (and float64 sums), to the bit.

const f32 = Math.fround;
const lanes = [new Float32Array(8), new Float64Array(8)]; // they round what is stored

/** Returns a number rounded to a whole one, half to even, as NumPy and Python round. */
export function rounded(value) {
  const floor = Math.floor(value);
  const rest = value - floor;
  return rest > 0.5 || (rest === 0.5 && floor % 2 !== 0) ? floor + 1 : floor;
}

/** Returns the largest of a list of numbers of 0 and more; 0 of none. */
export const most = (list) => list.reduce((one, other) => Math.max(one, other), 0);

/** Returns the largest value, of 0 and more, of a typed array; 0 of none. */
export function largest(values) {
  let found = 0;
  for (let at = 0; at < values.length; at++) found = values[at] > found ? values[at] : found;
  return found;
}

/** Returns how many values are a number at most. */
export function countUpTo(values, limit) {
  let count = 0;
  for (let at = 0; at < values.length; at++) count += values[at] <= limit ? 1 : 0;
  return count;
}

/** Returns the sum as NumPy adds: in pairs of blocks, each addition rounded to the array's type. */
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

const counts = new Uint32Array(65536);

/** Returns the values at `rank` and after it in sorted order, of float32 that are 0 or more. */
function ranked(values, rank) {
  if (rank + 1 < countUpTo(values, 0)) return [0, 0];
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length); // in the values' order
  let before = 0;
  const bucket = () => {
    let at = 0;
    while (before + counts[at] <= rank) before += counts[at++];
    return at;
  };
  counts.fill(0);
  for (let at = 0; at < bits.length; at++) counts[bits[at] >>> 16]++;
  const high = bucket();
  counts.fill(0);
  for (let at = 0; at < bits.length; at++) {
    if (bits[at] >>> 16 === high) counts[bits[at] & 65535]++;
  }
  const low = bucket();
  const found = high * 65536 + low;
  let following = found;
  if (rank + 1 >= before + counts[low] && rank + 1 < bits.length) {
    following = bits.reduce((least, each) => (each > found && each < least ? each : least), 2 ** 32 - 1);
  }
  return new Float32Array(Uint32Array.of(found, following).buffer);
}

/** Returns the median of float32 that are 0 or more. */
export function median(values) {
  const half = values.length / 2;
  const [low, high] = ranked(values, Math.ceil(half) - 1);
  return half % 1 ? low : f32(f32(low + high) / 2);
}

/** Returns the value below which a share of float32 that are 0 or more lies. */
export function percentile(values, share) {
  const position = (values.length - 1) * share;
  const part = position % 1;
  const [low, high] = ranked(values, Math.floor(position));
  const step = f32(high - low);
  return part >= 0.5 ? f32(high - f32(step * f32(1 - part))) : f32(low + f32(step * f32(part)));
}
