// The history of a training as two charts over the epochs: loss and accuracy.

import { element } from "./elements.js";

const HEIGHT = 190;
const [LEFT, RIGHT, TOP, BOTTOM] = [48, 16, 14, 26];
const CHARTS = [
  { name: "Loss", title: "Loss: how wrong it is", keys: ["trainLoss", "heldOutLoss"], isLogarithmic: true, text: String },
  { name: "Accuracy", title: "Accuracy: the share it reads correctly", keys: ["trainAccuracy", "heldOutAccuracy"], text: (share) => `${Number((100 * share).toFixed(2))} %` },
];

function shape(name, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

/** @returns {{node: HTMLElement, mark: (epoch: number) => void}} `mark` shows the epoch that is looked at */
export function historyChart(history) {
  const { servedEpoch } = history;
  const charts = CHARTS.map(({ title }) => element("figure.chart", {}, element("figcaption", {}, title), element("div")));
  const node = element("div", {}, element("div.charts", {}, ...charts), element(
    "p.legend.hint", {}, element("i.held-out"), "held-out images", element("i.train"), "training images, distorted to make them harder",
    ...(servedEpoch ? [element("i.is-served"), `epoch ${servedEpoch}, served`] : []),
  ));
  let marked = null;
  function draw() {
    charts.forEach(({ lastChild, clientWidth }, i) => {
      if (clientWidth) lastChild.replaceChildren(drawn(CHARTS[i], history, clientWidth, marked));
    });
  }
  new ResizeObserver(draw).observe(node);
  return {
    node,
    mark(epoch) {
      marked = epoch;
      draw();
    },
  };
}

function drawn({ name, keys, isLogarithmic, text }, { epochs, servedEpoch }, width, marked) {
  const values = epochs.flatMap((epoch) => keys.map((key) => epoch[key]));
  const ticks = isLogarithmic ? decades(values) : [0, 0.5, 1];
  const last = epochs.at(-1);
  const [right, bottom] = [width - RIGHT, HEIGHT - BOTTOM];
  const across = scale([1, last.epoch], [LEFT, right], Math.log);
  const up = scale([ticks[0], ticks.at(-1)], [bottom, TOP], isLogarithmic ? Math.log : (value) => value);
  const id = `chart-${name}`;
  const label = (x, y, anchor, content) => shape("text", { x, y, "text-anchor": anchor }, content);
  const line = (key, kind) => shape("polyline", { class: kind, points: epochs.map((each) => [across(each.epoch), up(each[key])].map((part) => part.toFixed(1)).join()).join(" ") });
  const upright = (epoch, kind) => shape("line", { class: kind, x1: across(epoch), x2: across(epoch), y1: TOP, y2: bottom });
  const [start, end] = [epochs[0], last].map((each) => text(Number(each[keys[1]].toPrecision(4))));
  return shape(
    "svg", { width, height: HEIGHT, role: "img", "aria-labelledby": `${id}-title ${id}-text` },
    shape("title", { id: `${id}-title` }, `${name} after each epoch`),
    shape("desc", { id: `${id}-text` }, `On held-out images from ${start} after epoch 1 to ${end} after epoch ${last.epoch}. The table below has the numbers.`),
    ...ticks.flatMap((value) => [shape("line", { class: "rule", x1: LEFT, x2: right, y1: up(value), y2: up(value) }), label(LEFT - 8, up(value) + 4, "end", text(value))]),
    label(0, HEIGHT - 8, "start", "epoch"),
    ...epochTicks(last.epoch).map((epoch) => label(across(epoch), HEIGHT - 8, "middle", String(epoch))),
    line(keys[0], "train"), line(keys[1], "held-out"),
    ...(servedEpoch ? [upright(servedEpoch, "is-served")] : []), ...(marked === null ? [] : [upright(marked, "marked")]),
  );
}

function scale([low, high], [start, end], of) {
  const range = of(high) - of(low) || 1;
  return (value) => start + ((of(Math.max(value, low)) - of(low)) / range) * (end - start);
}

/** Powers of ten that enclose all values. */
function decades(values) {
  const first = Math.floor(Math.log10(Math.min(...values.filter((value) => value > 0))));
  const count = Math.max(1, Math.ceil(Math.log10(Math.max(...values))) - first);
  return Array.from({ length: count + 1 }, (_, step) => Number((10 ** (first + step)).toPrecision(1)));
}

/** 1, 2, 5, 10, 20, 50 and so on */
function epochTicks(last) {
  const ticks = [];
  for (let decade = 1; decade <= last; decade *= 10) ticks.push(decade, 2 * decade, 5 * decade);
  return ticks.filter((epoch) => epoch <= last);
}
