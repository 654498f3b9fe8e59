// Arrays of numbers as pictures on a canvas, in the colours of the style sheet.

const dark = matchMedia("(prefers-color-scheme: dark)");
let colours = null;

dark.addEventListener("change", () => {
  colours = null;
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

/**
 * Draw an array, one canvas pixel for each value; the style sheet scales it up.
 * @param {HTMLCanvasElement} canvas
 * @param {ArrayLike<number>} values row-major
 * @param {number} width of a row
 * @param {(value: number) => number[]} colour
 */
export function drawArray(canvas, values, width, colour) {
  const height = Math.ceil(values.length / width);
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const picture = new ImageData(width, height);
  const { blank } = palette();
  for (let i = 0; i < width * height; i += 1) {
    const [red, green, blue] = i < values.length ? colour(values[i]) : blank;
    picture.data.set([red, green, blue, 255], 4 * i);
  }
  canvas.getContext("2d").putImageData(picture, 0, 0);
}

/**
 * Draw an image in ink on paper.
 * @param {HTMLCanvasElement} canvas
 * @param {ArrayLike<number>} values 0..`full`, row-major
 * @param {number} width
 * @param {number} [full] value of full ink
 */
export function drawImage(canvas, values, width, full = 1) {
  drawArray(canvas, values, width, (value) => inkColour(value / full));
}

/**
 * Draw values of both signs.
 * @param {HTMLCanvasElement} canvas
 * @param {ArrayLike<number>} values row-major
 * @param {number} width
 * @param {number} [full] magnitude of the full colour; by default the largest there is
 */
export function drawDiverging(canvas, values, width, full = largest(values)) {
  drawArray(canvas, values, width, (value) => divergingColour(full ? value / full : 0));
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
