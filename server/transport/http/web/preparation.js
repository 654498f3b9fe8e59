// A picture of a digit in the form of the training images: MNIST's.

const SIDE = 28;
const BOX_SIDE = 20;
const MIN_CONTRAST = 0.1;
const MIN_INK = 0.1;

/**
 * @param {Float32Array|Uint8Array} gray floats in 0..1 or bytes, row-major, [height, width]; light
 *   ink on dark paper or dark on light
 * @param {number} width
 * @param {number} height
 * @returns {{pixels: Uint8Array, warnings: string[], steps: object[]}} pixels of 28 x 28, ink light.
 *   Steps, in order: {name, width, height, pixels: Uint8Array} with the names "picture" (with
 *   `box`: {left, top, width, height}, where the ink is), "box", "scaled" and "centred"; only
 *   "centred" for a picture that has the form already
 * @throws {Error} if there is no ink
 */
export function prepare(gray, width, height) {
  const ink = inkOf(gray, width, height);
  const whole = { width, height, values: ink };
  const box = boxOf(whole);
  const cut = crop(whole, box);
  const scaled = scale(cut, BOX_SIDE / Math.max(box.width, box.height));
  const centred = centre(scaled);
  const steps = [
    { name: "picture", ...asBytes(whole), box },
    { name: "box", ...asBytes(cut) },
    { name: "scaled", ...asBytes(scaled) },
    { name: "centred", ...asBytes(centred) },
  ];
  return { pixels: steps.at(-1).pixels, warnings: [], steps };
}

function inkOf(gray, width, height) {
  const full = gray instanceof Uint8Array ? 255 : 1;
  const border = [];
  for (let x = 0; x < width; x += 1) border.push(gray[x], gray[(height - 1) * width + x]);
  for (let y = 0; y < height; y += 1) border.push(gray[y * width], gray[(y + 1) * width - 1]);
  const paper = border.sort((a, b) => a - b)[border.length >> 1];
  const ink = Float32Array.from(gray, (value) => Math.abs(value - paper) / full);
  const most = ink.reduce((found, value) => Math.max(found, value), 0);
  if (!(most >= MIN_CONTRAST)) throw new Error("There is no ink in the picture.");
  return ink.map((value) => value / most);
}

function boxOf({ width, height, values }) {
  let [left, top, right, bottom] = [width, height, -1, -1];
  for (let y = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1) {
      if (values[y * width + x] <= MIN_INK) continue;
      left = Math.min(left, x);
      right = Math.max(right, x);
      top = Math.min(top, y);
      bottom = y;
    }
  }
  return { left, top, width: right - left + 1, height: bottom - top + 1 };
}

function crop({ width, values }, box) {
  const cut = new Float32Array(box.width * box.height);
  for (let y = 0; y < box.height; y += 1) {
    const start = (box.top + y) * width + box.left;
    cut.set(values.subarray(start, start + box.width), y * box.width);
  }
  return { width: box.width, height: box.height, values: cut };
}

/** Scale by area: every new pixel is the mean of what it covers. */
function scale({ width, height, values }, factor) {
  const [newWidth, newHeight] = [width, height].map((side) => Math.max(1, Math.round(side * factor)));
  const across = resample(values, width, newWidth, height, 1, width);
  const down = resample(across, height, newHeight, newWidth, newWidth, 1);
  return { width: newWidth, height: newHeight, values: down };
}

function resample(values, length, newLength, lines, step, lineStep) {
  const newLineStep = step === 1 ? newLength : lineStep;
  const made = new Float32Array(newLength * lines);
  const ratio = length / newLength;
  for (let i = 0; i < newLength; i += 1) {
    const [start, end] = [i * ratio, (i + 1) * ratio];
    for (let j = Math.floor(start); j < Math.min(Math.ceil(end), length); j += 1) {
      const weight = (Math.min(end, j + 1) - Math.max(start, j)) / ratio;
      for (let line = 0; line < lines; line += 1) {
        made[line * newLineStep + i * step] += weight * values[line * lineStep + j * step];
      }
    }
  }
  return made;
}

function centre({ width, height, values }) {
  let [total, xs, ys] = [0, 0, 0];
  values.forEach((value, i) => {
    total += value;
    xs += value * (i % width);
    ys += value * Math.floor(i / width);
  });
  const start = (side, mass) => Math.min(Math.max(Math.round((SIDE - 1) / 2 - mass / total), 0), SIDE - side);
  const [left, top] = [start(width, xs), start(height, ys)];
  const field = new Float32Array(SIDE * SIDE);
  values.forEach((value, i) => {
    field[(top + Math.floor(i / width)) * SIDE + left + (i % width)] = value;
  });
  return { width: SIDE, height: SIDE, values: field };
}

function asBytes({ width, height, values }) {
  return { width, height, pixels: Uint8Array.from(values, (value) => Math.round(255 * Math.min(1, value))) };
}
