// Arrays of numbers as pictures on a canvas, in the colours of the style sheet.

const dark = matchMedia("(prefers-color-scheme: dark)");
const LEVELS = 256; // of ink, and of each sign
let colours = null;
let tables = null;

dark.addEventListener("change", () => {
  colours = null;
  tables = null;
});

/**
 * @returns {{paper: number[], ink: number[], positive: number[], negative: number[], zero: number[],
 *   blank: number[]}} the style sheet's colours, each [red, green, blue]
 */
export function palette() {
  colours ??= Object.fromEntries(
    ["paper", "ink", "positive", "negative", "zero", "blank"].map((name) => [name, rgb(`--${name}`)]),
  );
  return colours;
}

function rgb(name) {
  const value = getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  return [1, 3, 5].map((start) => Number.parseInt(value.slice(start, start + 2), 16));
}

/**
 * Call a function now and whenever light and dark change.
 * @param {() => void} render
 */
export function onColours(render) {
  dark.addEventListener("change", render);
  render();
}

/**
 * @param {number} share in 0..1
 * @returns {number[]} from the paper's colour to the ink's
 */
export function inkColour(share) {
  const { paper, ink } = palette();
  return mix(paper, ink, share);
}

/**
 * @param {number} share in -1..1
 * @returns {number[]} negative, zero, positive: colours that differ for the colour-blind, too
 */
export function divergingColour(share) {
  const { zero, positive, negative } = palette();
  return mix(zero, share < 0 ? negative : positive, Math.sqrt(Math.min(1, Math.abs(share))));
}

function mix(from, to, share) {
  return from.map((channel, i) => channel + (to[i] - channel) * share);
}

/** Colours as the 32 bits of a pixel, made once: a picture may have many thousands of pixels. */
function colourTables() {
  tables ??= {
    ink: Uint32Array.from({ length: LEVELS }, (_, i) => pixelOf(inkColour(i / (LEVELS - 1)))),
    diverging: Uint32Array.from({ length: 2 * LEVELS - 1 }, (_, i) => pixelOf(divergingColour(i / (LEVELS - 1) - 1))),
    blank: pixelOf(palette().blank),
  };
  return tables;
}

function pixelOf(colour) {
  return new Uint32Array(Uint8ClampedArray.from([...colour, 255]).buffer)[0];
}

/**
 * Draw an array, one canvas pixel for each value; the style sheet scales it up.
 * @param {HTMLCanvasElement} canvas
 * @param {ArrayLike<any>} values row-major
 * @param {number} width of a row
 * @param {(value: any) => number[]} colour
 */
export function drawArray(canvas, values, width, colour) {
  paint(canvas, values, width, (value) => pixelOf(colour(value)));
}

function drawLevels(canvas, values, width, table, factor, offset) {
  const most = table.length - 1;
  paint(canvas, values, width, (value) => table[Math.min(most, Math.max(0, Math.round(value * factor) + offset))]);
}

function paint(canvas, values, width, pixel) {
  const height = Math.ceil(values.length / width);
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const picture = new ImageData(width, height);
  const pixels = new Uint32Array(picture.data.buffer).fill(colourTables().blank);
  for (let i = 0; i < values.length; i += 1) pixels[i] = pixel(values[i]);
  canvas.getContext("2d").putImageData(picture, 0, 0);
}

/**
 * Draw an image in ink on paper, one canvas pixel for each value; the style sheet scales it up.
 * @param {HTMLCanvasElement} canvas
 * @param {ArrayLike<number>} values 0..`full`, row-major
 * @param {number} width
 * @param {number} [full] value of full ink
 */
export function drawImage(canvas, values, width, full = 1) {
  drawLevels(canvas, values, width, colourTables().ink, (LEVELS - 1) / full, 0);
}

/**
 * Draw values of both signs.
 * @param {HTMLCanvasElement} canvas
 * @param {ArrayLike<number>} values row-major
 * @param {number} width
 * @param {number} [full] magnitude of the full colour; by default the largest there is
 */
export function drawDiverging(canvas, values, width, full = largest(values)) {
  drawLevels(canvas, values, width, colourTables().diverging, full ? (LEVELS - 1) / full : 0, LEVELS - 1);
}

/**
 * @param {ArrayLike<number>} values
 * @returns {number} the largest magnitude
 */
export function largest(values) {
  let found = 0;
  for (const value of values) found = Math.max(found, Math.abs(value));
  return found;
}
