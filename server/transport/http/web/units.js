// Look inside: the arithmetic of one hidden unit.

import { element } from "./elements.js";
import { products, sumOf } from "./network.js";
import { formatNumber } from "./numbers.js";
import { onModel, unitCard } from "./panels.js";
import { divergingColour, drawDiverging, drawImage, largest, onColours } from "./pictures.js";
import { order } from "./prediction.js";
import { scoreCard } from "./scores.js";
import { bar, dataTable, formatSigned, numberOf, sumTable } from "./sums.js";
import { isChanged, partsOf, toggleUnit, valuesOf } from "./traces.js";

const REST = "Rounding of float32";
const SUM_HINT = "Each bar starts where the one above ended. The bias is a number that training found and that is added whatever you draw. " +
  "Rounding: a computer keeps about 7 digits of a number (float32), so its sum is a little off.";

export function mount(place, app) {
  onModel(app.store, (model, subscribe) => {
    const parts = partsOf(model.stages);
    const panel = { ...app, model, subscribe, parts };
    place.replaceChildren(
      element("p.lead", {}, "A network is only arithmetic, and you can check it. Point at or tap a hidden unit or a score, here or in the pipeline."),
      element("div.pair", {}, ...(parts.hidden ? [hiddenCard(panel)] : []), scoreCard(panel)),
    );
  });
}

function hiddenCard(panel) {
  const { store, model, parts } = panel;
  const { inputs, linear, relu } = parts.hidden;
  const [count] = linear.shape;
  const equation = pixelEquation(model.input.shape);
  const [sum, rule, next] = ["div", "p", "div"].map((name) => element(name));
  const off = element("button", { type: "button" });
  const { node, title, buttons, ask } = unitCard(panel, {
    kind: "units",
    label: `${count} hidden units: choose one to look into`,
    texts: Array.from({ length: count }, (_, unit) => element("span.visually-hidden", {}, `unit ${unit}`)),
    hint: "Each square is a hidden unit. The fuller its colour, the larger its output; an empty square is off (0). Point at a unit to see it; click or tap it to keep it.",
    stages: [linear.name, relu.name],
    parts: [equation.node, element("p.hint", {}, SUM_HINT), sum, rule, off, next],
    render({ trace, image, parameters }, asked) {
      const { interventions } = trace;
      const [before, sums, outputs] = [inputs, linear, relu].map(({ name }) => valuesOf(trace, name, image));
      const unit = asked ?? order(outputs)[0];
      title.textContent = `Hidden unit ${unit}`;
      paintUnits(buttons, outputs);
      const { weight, bias } = parameters[linear.name];
      const terms = products(weight, unit, before);
      equation.show(before, weight.subarray(unit * before.length, (unit + 1) * before.length), terms);
      const [sumChanged, outputChanged] = [linear, relu].map(({ name }) => isChanged(interventions, name, unit, image));
      sum.replaceChildren(unitSum(terms, bias[unit], sumChanged, `${linear.name}[${unit}]`, sums[unit]));
      rule.replaceChildren(...reluRule(`${relu.name}[${unit}]`, sums[unit], outputs[unit], outputChanged));
      const isOff = toggleUnit(interventions, relu.name, unit).length < interventions.length;
      off.textContent = `Switch unit ${unit} ${isOff ? "on again" : "off"}`;
      off.onclick = () => store.set({ interventions: toggleUnit(store.get().interventions, relu.name, unit) });
      if (parts.score.inputs === relu) next.replaceChildren(effects(model.labels, parameters[parts.score.linear.name], unit, outputs[unit]));
      return unit;
    },
  });
  onColours(ask);
  return node;
}

function paintUnits(buttons, outputs) {
  const full = largest(outputs) || 1;
  buttons.forEach((button, unit) => {
    button.style.backgroundColor = `rgb(${divergingColour(outputs[unit] / full).join()})`;
    button.classList.toggle("off", outputs[unit] === 0);
    button.title = `unit ${unit}: ${formatNumber(outputs[unit])}`;
  });
}

/** Three pictures, pixels times weights is products, with one pixel that is read out. */
function pixelEquation([height, width]) {
  const captions = ["your pixels", "its weights", "products"];
  const canvases = captions.map((label) => element("canvas", { role: "img", aria: { label } }));
  const marks = captions.map(() => element("i.mark"));
  const readout = element("output.hint.pixel");
  const figures = captions.map((caption, i) => (
    element("figure", {}, element("div.frame", {}, canvases[i], marks[i]), element("figcaption", {}, caption))));
  let shown = null; // pixels, weights, products
  let pointed = null;

  const largestAt = () => order(shown[2].map(Math.abs))[0];
  function readOut(pixel) {
    pointed = pixel;
    if (!shown) return;
    const at = pixel ?? largestAt();
    const [row, column] = [Math.floor(at / width), at % width];
    for (const { style } of marks) {
      Object.assign(style, { left: `${(100 * column) / width}%`, top: `${(100 * row) / height}%`, width: `${100 / width}%`, height: `${100 / height}%` });
    }
    const [ink, weight, product] = shown.map((values) => formatNumber(values[at], 3));
    readout.textContent = `${pixel === null ? "Largest: row" : "Row"} ${row}, column ${column}: ${ink} × ${weight} = ${product}`;
  }
  function onkeydown(event) {
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -width, ArrowDown: width }[event.key];
    if (!step) return;
    event.preventDefault();
    const size = height * width;
    readOut(((pointed ?? largestAt()) + step + size) % size);
  }
  for (const canvas of canvases) {
    canvas.onpointermove = ({ offsetX, offsetY }) => {
      const cell = (offset, size, cells) => Math.min(cells - 1, Math.max(0, Math.floor((offset / size) * cells)));
      readOut(cell(offsetY, canvas.clientHeight, height) * width + cell(offsetX, canvas.clientWidth, width));
    };
    canvas.onpointerleave = () => readOut(null);
  }
  const sign = (text) => element("span.sign", {}, text);
  const label = "Pixels times weights; arrow keys go from one pixel to the next";
  const group = element("div.equation", { tabIndex: 0, role: "group", aria: { label }, onkeydown }, figures[0], sign("×"), figures[1], sign("="), figures[2]);
  return {
    node: element("div", {}, group, readout),
    show(...values) {
      shown = values;
      drawImage(canvases[0], values[0], width);
      drawDiverging(canvases[1], values[1], width);
      drawDiverging(canvases[2], values[2], width);
      readOut(pointed);
    },
  };
}

function unitSum(terms, bias, isOwn, name, total) {
  const [above, below] = [terms.filter((term) => term > 0), terms.filter((term) => term < 0)];
  return sumTable(`${terms.length} products and a bias make the sum`, [
    [`${above.length} products above 0`, sumOf(above)], [`${below.length} products below 0`, sumOf(below)], ["Bias of the unit", bias],
  ], isOwn ? "Your change" : REST, name, total);
}

function reluRule(name, sum, output, isOwn) {
  const written = (value) => numberOf(value, formatNumber(value, 6));
  const passed = Math.max(0, sum);
  const formula = [element("code", {}, name), " = max(0, ", written(sum), ") = ", written(passed)];
  if (isOwn) return [...formula, ". Your change makes it ", written(output), "."];
  return [...formula, passed > 0
    ? ". The sum is above 0, so ReLU lets it through: the unit is on."
    : ". The sum is not above 0, so ReLU makes it 0: the unit is off."];
}

function effects(labels, { weight, shape }, unit, output) {
  const values = labels.map((_, label) => weight[label * shape[1] + unit] * output);
  const full = largest(values);
  return dataTable("What it adds to each score: its output times the weight to that score", ["Score of", "", "Adds"], labels.map((label, i) => (
    [label, bar(0, values[i], -full, full), numberOf(values[i], formatSigned(values[i]))])), "tight");
}
