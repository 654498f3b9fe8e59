// NumPy's sums, medians and percentiles of float32, to the bit.

const f32 = Math.fround;

/** Returns a number rounded to a whole one, half to even, as NumPy and Python round. */
export function rounded(value) {
  const floor = Math.floor(value);
  const rest = value - floor;
  if (rest === 0.5) {
    return floor % 2 === 0 ? floor : floor + 1;
  }
  return rest < 0.5 ? floor : floor + 1;
}

/** Returns the sum as NumPy adds: in pairs of blocks, each addition rounded to the array's type. */
export function sum(values, from = 0, count = values.length) {
  return pairwise(values, from, count, values instanceof Float32Array ? f32 : Number);
}

function pairwise(values, from, count, round) {
  let total = 0;
  if (count > 128) {
    const half = (count >> 1) - ((count >> 1) % 8);
    return round(pairwise(values, from, half, round) + pairwise(values, from + half, count - half, round));
  }
  const whole = count - (count % 8);
  if (whole > 0) {
    const sums = values.slice(from, from + 8);
    for (let at = from + 8; at < from + whole; at += 8) {
      for (let lane = 0; lane < 8; lane++) {
        sums[lane] += values[at + lane];
      }
    }
    const [a, b, c, d, e, f, g, h] = sums;
    total = round(
      round(round(a + b) + round(c + d)) + round(round(e + f) + round(g + h)),
    );
  }
  for (let at = from + whole; at < from + count; at++) {
    total = round(total + values[at]);
  }
  return total;
}

const counts = new Uint32Array(65536);

/** Returns the values at `rank` and after it in sorted order, of float32 that are 0 or more. */
function ranked(values, rank) {
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length); // sorted as the values are
  let before = 0;
  const bucketOf = () => {
    let bucket = 0;
    while (before + counts[bucket] <= rank) {
      before += counts[bucket++];
    }
    return bucket;
  };
  counts.fill(0);
  for (let at = 0; at < bits.length; at++) {
    counts[bits[at] >>> 16]++;
  }
  const high = bucketOf();
  counts.fill(0);
  for (let at = 0; at < bits.length; at++) {
    if (bits[at] >>> 16 === high) {
      counts[bits[at] & 65535]++;
    }
  }
  const low = bucketOf();
  const found = high * 65536 + low;
  let following = found;
  if (rank + 1 >= before + counts[low] && rank + 1 < bits.length) {
    following = 2 ** 32;
    for (let at = 0; at < bits.length; at++) {
      if (bits[at] > found && bits[at] < following) {
        following = bits[at];
      }
    }
  }
  return new Float32Array(new Uint32Array([found, following]).buffer);
}

/** Returns the median of float32 values that are 0 or more. */
export function median(values) {
  const count = values.length;
  if (count % 2 === 1) {
    return ranked(values, (count - 1) / 2)[0];
  }
  const [low, high] = ranked(values, count / 2 - 1);
  return f32(f32(low + high) / 2);
}

/** Returns the value below which a share of float32 values that are 0 or more lies. */
export function percentile(values, share) {
  const position = (values.length - 1) * share;
  const rank = Math.floor(position);
  const part = position - rank;
  const [low, high] = ranked(values, rank);
  const step = f32(high - low);
  return part >= 0.5 ? f32(high - f32(step * f32(1 - part))) : f32(low + f32(step * f32(part)));
}

/** Returns the largest of some values; 0 of none. */
export function largest(values) {
  let found = 0;
  for (let at = 0; at < values.length; at++) {
    if (values[at] > found) {
      found = values[at];
    }
  }
  return found;
}
