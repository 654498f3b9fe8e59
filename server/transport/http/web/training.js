// Training trace: how the network came to be, and what its earlier selves say to the drawing.

import { historyChart } from "./chart.js";
import { element } from "./elements.js";
import { forward, pixelsOf } from "./network.js";
import { formatNumber } from "./numbers.js";
import { lazily, onModel } from "./panels.js";
import { divergingColour, drawArray, largest, onColours, palette } from "./pictures.js";
import { order } from "./prediction.js";
import { bar, dataTable, numberOf, scoreTable } from "./sums.js";

const FEW_EPOCHS = 10;
const STEP = 900; // milliseconds that an epoch is shown for when they play
const formatPercent = (share) => `${(100 * share).toFixed(2)} %`;
const formatScore = (score) => formatNumber(Math.abs(score) < 0.005 ? 0 : score);
const formatObservation = (text) => text.replace(/(\d)%/g, "$1 %"); // as the accuracy beside it

export function mount(place, app) {
  onModel(app.store, (model, subscribe) => {
    const content = element("div.stack", {}, element("p.hint", {}, "The record of the training is on its way."));
    place.replaceChildren(content);
    let isAsked = false;
    const ask = lazily(content, async () => {
      if (isAsked) return;
      isAsked = true;
      try {
        show(content, decodeHistory(await app.api.getTrainingHistory()), { ...app, model, subscribe });
      } catch (error) {
        isAsked = error.code === "not_found"; // else once more when the server is back
        content.replaceChildren(element("p.card", {}, isAsked
          ? "This network was published without a record of its training, so there is none to show."
          : `The record of the training could not be loaded: ${error.message}`));
      }
    });
    subscribe(["connection"], ask);
  });
}

function decodeHistory({ epochs = [], snapshotEpochs = [], servedEpoch = 0 }) {
  const zeros = { trainLoss: 0, trainAccuracy: 0, heldOutLoss: 0, heldOutAccuracy: 0, observation: "" };
  return { epochs: epochs.map((epoch) => ({ ...zeros, ...epoch })), snapshotEpochs, servedEpoch };
}

function show(content, history, panel) {
  const { epochs, snapshotEpochs, servedEpoch } = history;
  const chart = historyChart(history);
  content.replaceChildren(
    element("p.lead", {}, `Training showed the network all its images ${epochs.length} times; one time is an epoch. After each, it was tested on images that it never trained on: the held-out ones.` +
      (servedEpoch ? ` What it was after epoch ${servedEpoch} is served.` : "")),
    element("div.card", {}, chart.node, epochTable(history)),
    snapshotEpochs.length ? snapshots(history, panel, chart.mark)
      : element("p.card", {}, "This network was published without the weights of its earlier epochs, so they cannot judge your drawing."),
  );
}

function epochTable({ epochs, snapshotEpochs, servedEpoch }) {
  const kept = epochs.filter(({ epoch }) => epoch === servedEpoch || snapshotEpochs.includes(epoch));
  const few = kept.length ? kept : epochs.slice(0, FEW_EPOCHS);
  const holder = element("div.scroll.epochs", { tabIndex: 0, role: "region", aria: { label: "Epochs" } });
  let isWhole = true;
  const button = element("button.quiet", { type: "button", hidden: few.length === epochs.length });
  button.onclick = () => {
    isWhole = !isWhole;
    button.textContent = isWhole ? "Show fewer" : `Show all ${epochs.length} epochs`;
    holder.replaceChildren(dataTable("On held-out images, after the epoch. Observations compare the accuracy with the best before, and the loss on the training images (in the chart, not here) with the epoch just before, which may not be in the table.", ["Epoch", "Loss", "Accuracy", "Observation"], (isWhole ? epochs : few).map((each) => [
      each.epoch === servedEpoch ? element("strong", {}, `${each.epoch} (served)`) : String(each.epoch),
      numberOf(each.heldOutLoss, formatNumber(each.heldOutLoss, 4)), numberOf(each.heldOutAccuracy, formatPercent(each.heldOutAccuracy)), formatObservation(each.observation),
    ])));
  };
  button.onclick();
  return element("div", {}, holder, button);
}

function snapshots({ epochs, snapshotEpochs, servedEpoch }, { api, store, model, subscribe }, mark) {
  const first = model.stages.find(({ operation }) => operation === "Linear");
  const last = snapshotEpochs.length - 1;
  const slider = element("input", { type: "range", id: "epoch", min: 0, max: last, step: 1 });
  const heading = element("output", { htmlFor: "epoch" });
  const figures = element("p.hint.figures");
  const verdict = element("p.verdict", { role: "status" });
  const scores = element("div");
  const canvas = element("canvas.weights", { role: "img" });
  const caption = element("figcaption.hint");
  const problem = element("p.problem", { role: "alert" });
  const play = element("button", { type: "button" }, "Play");
  const loaded = new Map();
  let timer = 0;

  function parametersOf(epoch) {
    if (!loaded.has(epoch)) loaded.set(epoch, api.getParameters({ epoch }));
    return loaded.get(epoch);
  }
  const ask = lazily(slider, async () => {
    const epoch = snapshotEpochs[slider.value];
    try {
      const parameters = await parametersOf(epoch);
      if (epoch !== snapshotEpochs[slider.value]) return;
      problem.textContent = "";
      showEpoch(epoch, parameters);
    } catch (error) {
      loaded.delete(epoch);
      problem.textContent = `The weights of epoch ${epoch} could not be loaded: ${error.message}`;
    }
  });
  function showEpoch(epoch, parameters) {
    const record = epochs.find((each) => each.epoch === epoch);
    mark(epoch);
    heading.textContent = epoch ? `After epoch ${epoch}${epoch === servedEpoch ? " (served)" : ""}` : "Before training";
    slider.ariaValueText = heading.textContent;
    figures.textContent = record
      ? `Loss ${formatNumber(record.heldOutLoss, 4)}, accuracy ${formatPercent(record.heldOutAccuracy)}: ${formatObservation(record.observation)}.`
      : "The weights are still random: nothing has been learned.";
    const { images, selected, parameters: served } = store.get();
    const judge = (weights) => forward(model.stages, weights, pixelsOf(images[selected])).get(model.stages.at(-1).name);
    const then = judge(parameters);
    const text = `It reads your drawing as ${model.labels[order(then)[0]]}.`;
    if (verdict.textContent !== text) verdict.textContent = text;
    scores.replaceChildren(judgement(model.labels, then, judge(served ?? parameters)));
    const { weight, shape } = parameters[first.name];
    drawGrid(canvas, weight, shape, model.input.shape[1]);
    caption.textContent = `The weights of the ${shape[0]} units of ${first.name}, each as a picture: blue where ink raises the unit, orange where it lowers it. Full colour is ±${formatNumber(largest(weight))}.`;
    canvas.ariaLabel = `${heading.textContent}: weights of ${first.name}`;
  }
  function go(position) {
    slider.value = position;
    ask();
    if (position >= last) stop();
  }
  function stop() {
    clearInterval(timer);
    timer = 0;
    play.textContent = "Play";
  }
  play.onclick = () => {
    if (timer) return stop();
    play.textContent = "Pause";
    timer = setInterval(() => go(Number(slider.value) + 1), STEP);
    return go(Number(slider.value) < last ? Number(slider.value) : 0);
  };
  slider.oninput = () => {
    stop();
    ask();
  };
  slider.value = servedEpoch && snapshotEpochs.includes(servedEpoch) ? snapshotEpochs.indexOf(servedEpoch) : last;
  subscribe(["images", "selected", "parameters"], ask);
  onColours(ask);
  new ResizeObserver(ask).observe(caption);
  return element(
    "div.card", {}, element("h3", {}, element("label", { htmlFor: "epoch" }, "Its earlier selves judge your drawing")),
    element("p.hint", {}, "Move the slider: your browser computes your digit with the weights of that epoch, as they were kept in half precision (float16)."),
    element("div.slider", {}, play, slider, heading), figures, problem,
    element("div.pair", {}, element("div", {}, verdict, scores), element("figure", {}, canvas, caption)),
  );
}

function judgement(labels, then, served) {
  const full = largest(then);
  return scoreTable("Scores with the weights of that epoch, and with the served ones. The longest bar is the score of that epoch that is furthest from 0.", ["", "Then", "Served"], labels, then, (i) => (
    [bar(0, then[i], -full, full), ...[then, served].map((scores) => numberOf(scores[i], formatScore(scores[i])))]));
}

/** The weights of all units on one canvas, with a line between them; each value on whole pixels of the screen, or some lines would be wider. */
function drawGrid(canvas, weight, [units, inputs], width) {
  const height = inputs / width;
  const room = Math.floor(canvas.parentElement.clientWidth * devicePixelRatio);
  const columns = Math.max(1, Math.min(Math.ceil(Math.sqrt(2 * units)), Math.floor((room + 1) / (width + 1))));
  const line = columns * (width + 1) - 1;
  const values = new Float32Array(line * (Math.ceil(units / columns) * (height + 1) - 1)).fill(NaN);
  for (let row = 0; row < units * height; row += 1) {
    const unit = Math.floor(row / height);
    const top = Math.floor(unit / columns) * (height + 1) + (row % height);
    values.set(weight.subarray(row * width, (row + 1) * width), top * line + (unit % columns) * (width + 1));
  }
  const full = largest(weight) || 1;
  const { blank } = palette();
  drawArray(canvas, values, line, (value) => (Number.isNaN(value) ? blank : divergingColour(value / full)));
  canvas.style.width = `${(Math.max(1, Math.floor(room / line)) * line) / devicePixelRatio}px`;
}
