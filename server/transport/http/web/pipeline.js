// The stages of the forward pass from left to right, each with what it makes of the drawing.

import { element } from "./elements.js";
import { formatNumber, formatShape, formatShare, showNumber } from "./numbers.js";
import { largest, onColours } from "./pictures.js";
import { lineOf, programOf } from "./program.js";
import { pictureOf } from "./stages.js";

const STATISTICS = [
  ["min", "min", formatNumber],
  ["max", "max", formatNumber],
  ["mean", "mean", formatNumber],
  ["standardDeviation", "std", formatNumber],
  ["l2Norm", "norm", formatNumber],
  ["zeroShare", "zeros", formatShare],
];
const QUIET = 250; // milliseconds without a new trace, then the light goes through the stages
const STEP = 170; // milliseconds at each stage

/**
 * @param {HTMLElement} place
 * @param {{store: object, show: (panel: string) => void}} app
 */
export function mount(place, app) {
  const { store } = app;
  const note = element("p.hint");
  const figures = element("p.hint.figures");
  const legend = element("div.key");
  const list = element("ol.stages");
  const program = element("figure.program-figure.card");
  place.append(
    element("p.lead", {}, "Each stage takes the numbers of the one before it. The line of code below a stage is all that makes it."),
    list, note, program,
  );
  let cards = [];
  let lines = null;

  function build({ model }) {
    cards = model.stages.map((stage, i) => cardOf(stage, i, model, (unit) => {
      store.set({ focus: { stage: stage.name, unit } });
      app.show("units");
    }));
    lines = programOf(model.stages);
    list.replaceChildren(...cards.map(({ item }) => item));
    legend.replaceChildren(...legendOf(model));
    figures.textContent = `${model.parameterCount.toLocaleString("en")} trained numbers in all: the weights and biases of ${model.stages.filter((stage) => stage.parameterCount).map((stage) => stage.name).join(" and ")}.`;
    program.replaceChildren(element("figcaption", {}, element("h3", {}, "The same in PyTorch"), figures), lines.element, legend);
    cards.forEach(({ item, name }) => {
      const line = lines.lines.get(name);
      for (const [event, isOn] of [["pointerenter", true], ["pointerleave", false]]) {
        item.addEventListener(event, () => [item, line].forEach((part) => part.classList.toggle("is-lit", isOn)));
      }
    });
  }

  function render({ model, trace, selected }) {
    if (!trace || cards.length !== trace.stages.length) return;
    const count = trace.stages[0].shape[0];
    const image = Math.min(selected, count - 1);
    const values = trace.stages.map((stage) => rowOf(stage, image));
    const full = largestOf(model.stages, values);
    cards.forEach((card, i) => card.show(trace.stages[i], values[i], full[i]));
    lines.showCount(count);
    note.textContent = count > 1
      ? `The pictures show drawing ${image + 1}. Shapes and statistics are of all ${count} drawings.`
      : "N, the first number of each shape, counts the drawings: 1 now. Add another one to the batch to see it grow.";
  }

  store.subscribe(["model"], build);
  store.subscribe(["model", "trace", "selected"], render);
  onColours(() => render(store.get()));
  const light = createLight(() => cards.map(({ item, name }) => [item, lines.lines.get(name)]));
  store.subscribe(["trace"], ({ trace }) => trace && light());
}

function legendOf({ stages }) {
  const trained = stages.filter((stage) => stage.parameterCount);
  return [
    element("p", {}, element("b", {}, "Colours of the pictures")),
    element("p.key-scale", {}, "0", element("i.is-ink"), "1"),
    element("p.key-scale", {}, "negative", element("i"), "positive"),
    element("p", {}, "Zero is pale. The strongest colour is the largest value of the stage."),
    ...trained.map((stage) => {
      const outputs = stage.shape.at(-1);
      const inputs = (stage.parameterCount - outputs) / outputs;
      return element("p", {}, element("b", {}, stage.name), `: ${inputs} × ${outputs} weights + ${outputs} biases = ${stage.parameterCount.toLocaleString("en")}`);
    }),
  ];
}

function rowOf(stage, image) {
  const size = stage.values.length / stage.shape[0];
  return stage.values.subarray(image * size, (image + 1) * size);
}

/** Magnitude of the full colour of each stage: a ReLU has that of the stage before it. */
function largestOf(stages, values) {
  const full = values.map(largest);
  return full.map((value, i) => (stages[i].operation === "ReLU" ? Math.max(value, full[i - 1]) : value));
}

function cardOf(stage, index, model, choose) {
  const shape = element("p.shape");
  const badge = element("span.badge", { hidden: true }, "changed");
  const picture = pictureOf(stage, model, choose);
  const numbers = STATISTICS.map(([key, label, format]) => {
    const number = element("data", { data: { statistic: key } });
    return { key, label, format, number };
  });
  const item = element("li.stage", { data: { stage: stage.name } },
    element("div.stage-head", {}, element("h3", {}, element("span.stage-number", { "aria-hidden": "true" }, String(index + 1)), stage.name), badge),
    element("p.stage-operation", {}, stage.description),
    shape,
    element("div.stage-picture", {}, picture.element),
    element("code.stage-line", {}, lineOf(stage)),
    element("dl.statistics", {}, ...numbers.map(({ label, number }) => (
      element("div", {}, element("dt", {}, label), element("dd", {}, number))))));

  function show(traced, values, full) {
    shape.textContent = formatShape(traced.shape);
    badge.hidden = !traced.changed;
    picture.show(values, full);
    for (const { key, format, number } of numbers) showNumber(number, traced.statistics[key], format);
  }
  return { item, name: stage.name, show };
}

/** @returns {() => void} what lights the stages one after the other, when all has been quiet */
function createLight(parts) {
  const stillness = matchMedia("(prefers-reduced-motion: reduce)");
  let timer = 0;

  function step(index) {
    parts().forEach((group, i) => group.forEach((part) => part.classList.toggle("is-lit", i === index)));
    if (index < parts().length) timer = setTimeout(() => step(index + 1), STEP);
  }
  return () => {
    clearTimeout(timer);
    if (stillness.matches) return;
    parts().flat().forEach((part) => part.classList.remove("is-lit"));
    timer = setTimeout(() => step(0), QUIET);
  };
}
