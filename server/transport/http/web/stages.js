// The picture of a stage's output for one image: an image, a row, a grid of units, or bars.

import { element } from "./elements.js";
import { formatNumber, showNumber } from "./numbers.js";
import { divergingColour, drawImage, inkColour, largest, palette } from "./pictures.js";
import { order } from "./prediction.js";

const MOST_BARS = 32;
const STRIP = { width: 392, height: 392, strip: [60, 130], zoom: [220, 330] };

/**
 * @param {object} stage of GetModel
 * @param {object} model GetModel
 * @param {(unit: number) => void} choose told of the unit that is clicked
 * @returns {{element: HTMLElement, show: (values: Float32Array, full: number) => void}} `values` are
 *   of one image, `full` is the magnitude of the full colour
 */
export function pictureOf(stage, model, choose) {
  const count = stage.shape.reduce((product, length) => product * length, 1);
  if (stage.shape.length === 2) return imagePicture(stage.shape[1]);
  if (stage.operation === "Flatten") return stripPicture(count, model.input.shape[1]);
  if (count > MOST_BARS) return gridPicture(count, choose);
  return barsPicture(count, stage.operation === "Output" ? model.labels : null);
}

function imagePicture(width) {
  const canvas = element("canvas", { role: "img" });
  const readout = element("p.readout");
  let shown = null;
  canvas.addEventListener("pointermove", (event) => {
    const [column, row] = cellAt(canvas, event, width, shown.length / width);
    readout.replaceChildren(`row ${row}, column ${column}: `, numberOf(shown[row * width + column]));
  });
  canvas.addEventListener("pointerleave", () => summarise());

  function summarise() {
    readout.textContent = `${shown.filter((value) => value > 0).length} pixels with ink`;
    canvas.setAttribute("aria-label", `The image: ${readout.textContent}`);
  }
  return {
    element: element("div.picture", {}, canvas, readout),
    show(values) {
      shown = values;
      drawImage(canvas, values, width);
      summarise();
    },
  };
}

function stripPicture(count, width) {
  const rows = count / width;
  const canvas = element("canvas.is-fine", { width: STRIP.width, height: STRIP.height });
  const readout = element("p.readout");
  let row = Math.floor(rows / 2);
  let shown = null;

  function render() {
    drawStrip(canvas, shown, width, row);
    readout.textContent = `row ${row} is at ${row * width}–${(row + 1) * width - 1}`;
    canvas.setAttribute("aria-valuetext", readout.textContent);
    canvas.setAttribute("aria-valuenow", String(row));
  }
  makeSlider(canvas, rows, "Row of the image in the flattened row", {
    at: (event) => cellAt(canvas, event, rows, 1)[0],
    get: () => row,
    point(index) {
      row = index;
      render();
    },
  });
  return {
    element: element("div.picture", {}, canvas, readout),
    show(values) {
      shown = values;
      render();
    },
  };
}

/** Draw all pixels in one row, and below it one row of the image, larger. */
function drawStrip(canvas, values, width, row) {
  const context = canvas.getContext("2d");
  const { ink, blank, zero } = palette();
  const [top, bottom] = STRIP.strip;
  const [zoomTop, zoomBottom] = STRIP.zoom;
  const cell = STRIP.width / values.length;
  context.fillStyle = `rgb(${blank})`;
  context.fillRect(0, 0, STRIP.width, STRIP.height);
  context.fillStyle = `rgb(${zero})`;
  context.fillRect(0, top, STRIP.width, bottom - top);
  for (let i = 0; i < values.length; i += 1) {
    if (!values[i]) continue;
    context.fillStyle = `rgb(${ink.join(" ")} / ${values[i]})`;
    context.fillRect(i * cell, top, cell, bottom - top);
  }
  const [left, right] = [row * width * cell, (row + 1) * width * cell];
  context.fillStyle = `rgb(${ink.join(" ")} / 0.1)`;
  context.beginPath();
  context.moveTo(left, bottom);
  context.lineTo(right, bottom);
  context.lineTo(STRIP.width, zoomTop);
  context.lineTo(0, zoomTop);
  context.fill();
  context.strokeStyle = accent();
  context.lineWidth = 3;
  context.strokeRect(left, top - 4, right - left, bottom - top + 8);
  const side = STRIP.width / width;
  for (let i = 0; i < width; i += 1) {
    context.fillStyle = `rgb(${inkColour(values[row * width + i]).map(Math.round)})`;
    context.fillRect(i * side, zoomTop, side + 0.5, zoomBottom - zoomTop);
  }
  context.strokeRect(1.5, zoomTop, STRIP.width - 3, zoomBottom - zoomTop);
}

function gridPicture(count, choose) {
  const columns = columnsOf(count);
  const rows = Math.ceil(count / columns);
  const canvas = element("canvas.is-fine.is-choosable");
  const readout = element("p.readout");
  let unit = null;
  let shown = null;
  let scale = 1;

  function render() {
    drawCells(canvas, shown, columns, scale, unit);
    const inUse = shown.filter((value) => value !== 0).length;
    readout.replaceChildren(...(unit === null ? [`${inUse} of ${count} are not 0`] : [`unit ${unit}: `, numberOf(shown[unit])]));
    canvas.setAttribute("aria-valuetext", readout.textContent);
    canvas.setAttribute("aria-valuenow", String(unit ?? 0));
  }
  makeSlider(canvas, count, "Unit", {
    at(event) {
      const [column, row] = cellAt(canvas, event, columns, rows);
      return Math.min(row * columns + column, count - 1);
    },
    get: () => unit ?? 0,
    point(index) {
      unit = index;
      render();
    },
    leave() {
      unit = null;
      render();
    },
    choose,
  });
  return {
    element: element("div.picture", {}, canvas, readout),
    show(values, full) {
      shown = values;
      scale = full;
      render();
    },
  };
}

/** @returns {number} columns of a grid near a square, with full rows if there is such a grid */
function columnsOf(count) {
  const least = Math.ceil(Math.sqrt(count));
  for (let columns = least; columns <= 2 * least; columns += 1) if (count % columns === 0) return columns;
  return least;
}

function drawCells(canvas, values, columns, full, chosen) {
  const rows = Math.ceil(values.length / columns);
  const [side, gap] = [24, 3];
  const [width, height] = [columns * side - gap, rows * side - gap];
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, width, height);
  for (let i = 0; i < values.length; i += 1) {
    const [x, y] = [(i % columns) * side, Math.floor(i / columns) * side];
    context.fillStyle = `rgb(${divergingColour(full ? values[i] / full : 0).map(Math.round)})`;
    context.fillRect(x, y, side - gap, side - gap);
    if (i === chosen) {
      context.strokeStyle = accent();
      context.lineWidth = 4;
      context.strokeRect(x + 2, y + 2, side - gap - 4, side - gap - 4);
    }
  }
}

function barsPicture(count, labels) {
  const rows = Array.from({ length: count }, (_, i) => {
    const [bar, number] = [element("i"), element("data")];
    const item = element("li", {},
      element("span.bar-label", {}, labels ? labels[i] : String(i)), element("span.bar-track", {}, bar), number);
    return { item, bar, number };
  });
  return {
    element: element(`ol.bars${labels ? ".has-labels" : ""}`, {}, ...rows.map(({ item }) => item)),
    show(values) {
      const full = largest(values) || 1;
      const [best] = order(values);
      rows.forEach(({ item, bar, number }, i) => {
        item.classList.toggle("is-best", Boolean(labels) && i === best);
        bar.className = values[i] < 0 ? "is-negative" : "is-positive";
        bar.style.transform = `scaleX(${values[i] / full})`;
        showNumber(number, values[i]);
      });
    },
  };
}

/** Let pointer and arrow keys choose one of `count` things on a canvas. */
function makeSlider(canvas, count, label, { at, get, point, leave = () => {}, choose = () => {} }) {
  const steps = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -10, PageUp: 10, Home: -count, End: count };
  Object.assign(canvas, { tabIndex: 0, role: "slider" });
  for (const [name, value] of Object.entries({ label, valuemin: 0, valuemax: count - 1, valuenow: 0 })) {
    canvas.setAttribute(`aria-${name}`, String(value));
  }
  canvas.addEventListener("pointermove", (event) => point(at(event)));
  canvas.addEventListener("pointerleave", leave);
  canvas.addEventListener("blur", leave);
  canvas.addEventListener("click", (event) => choose(at(event)));
  canvas.addEventListener("keydown", (event) => {
    if (event.key === "Enter") choose(get());
    else if (event.key in steps) point(Math.min(count - 1, Math.max(0, get() + steps[event.key])));
    else return;
    event.preventDefault();
  });
}

function cellAt(canvas, event, columns, rows) {
  const frame = canvas.getBoundingClientRect();
  const index = (offset, length, cells) => Math.min(cells - 1, Math.max(0, Math.floor((cells * offset) / length)));
  return [index(event.clientX - frame.left, frame.width, columns), index(event.clientY - frame.top, frame.height, rows)];
}

function accent() {
  return getComputedStyle(document.documentElement).getPropertyValue("--accent");
}

function numberOf(value) {
  const made = element("data");
  showNumber(made, value, (x) => formatNumber(x, 3));
  return made;
}
