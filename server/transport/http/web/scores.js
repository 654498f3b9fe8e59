// Look inside: what made one score, unit by unit and pixel by pixel.

import { element } from "./elements.js";
import { products, sumOf } from "./network.js";
import { formatNumber } from "./numbers.js";
import { unitCard } from "./panels.js";
import { divergingColour, drawArray, inkColour, largest, onColours } from "./pictures.js";
import { order } from "./prediction.js";
import { formatSmall, sumTable } from "./sums.js";
import { encodeImages } from "./tensors.js";
import { isChanged, valuesOf } from "./traces.js";

const SHOWN_TERMS = 8;
const DELAY = 200; // milliseconds without a new trace: not each step of a stroke is attributed
const UNDER = 0.15; // ink of the digit that shines through where a pixel adds nothing

export function scoreCard(panel) {
  const { model, parts } = panel;
  const { inputs, linear, output } = parts.score;
  const [size] = inputs.shape;
  let isWhole = false;
  const sum = element("div");
  const map = pixelMap(panel);
  const all = element("button.quiet", { type: "button", hidden: size <= SHOWN_TERMS, onclick: () => {
    isWhole = !isWhole;
    ask();
  } });
  const { node, title, ask } = unitCard(panel, {
    kind: "labels",
    label: "Scores: choose one to look into",
    texts: model.labels,
    hint: "The largest score is the prediction. Choose one to see what made it.",
    stages: [linear.name, output.name],
    parts: [sum, all, map.node],
    render({ trace, image, parameters }, asked) {
      const [before, scores] = [inputs, output].map(({ name }) => valuesOf(trace, name, image));
      const label = asked ?? order(scores)[0];
      title.textContent = `The score of ${model.labels[label]}`;
      const terms = scoreTerms(inputs.name, parameters[linear.name], label, before, isWhole ? size : SHOWN_TERMS);
      const rest = isChanged(trace.interventions, linear.name, label, image) ? "Your change" : "Rounding of float32";
      sum.replaceChildren(sumTable("Unit by unit: output × weight", terms, rest, `${output.name}[${label}]`, scores[label]));
      all.textContent = isWhole ? "Show the strongest only" : `Show all ${size} units`;
      map.show(label, trace, image);
      return label;
    },
  });
  return node;
}

function scoreTerms(name, { weight, bias }, label, before, most) {
  const terms = products(weight, label, before);
  const ranking = order(terms.map(Math.abs));
  const rows = ranking.slice(0, most).map((unit) => {
    const factors = [before[unit], weight[label * before.length + unit]].map((value) => formatNumber(value, 3)).join(" × ");
    return [element("span", {}, element("code", {}, `${name}[${unit}]`), element("small", {}, ` ${factors}`)), terms[unit]];
  });
  const others = ranking.slice(most);
  if (others.length) rows.push([`The other ${others.length} units`, sumOf(others.map((unit) => terms[unit]))]);
  return [...rows, ["Bias of the score", bias[label]]];
}

/** The exact attribution over the pixels, which the server computes. */
function pixelMap({ api, model, parts }) {
  const canvas = element("canvas", { role: "img" });
  const text = element("p.hint", { role: "status" });
  const sum = element("div");
  let timer = 0;
  let drawn = null;

  function draw() {
    if (!drawn) return;
    const full = largest(drawn.values);
    const pixels = Array.from(drawn.values, (value, pixel) => [value, drawn.image[pixel]]);
    drawArray(canvas, pixels, model.input.shape[1], ([value, ink]) => (
      value ? divergingColour(value / full) : inkColour((UNDER * ink) / 255)));
  }
  async function load(label, image, interventions) {
    const name = model.labels[label];
    try {
      const request = { images: encodeImages([image], model.input.shape), method: "ATTRIBUTION_METHOD_LINEAR_REGION", targetClass: label };
      const { contributions: { values }, attributions } = await api.attribute(request, { key: "pixels" });
      const { score = 0, bias = 0, residualBound = 0 } = attributions[0];
      drawn = { values, image };
      draw();
      canvas.ariaLabel = `Which pixels speak for ${name}, and which against it`;
      const terms = [["All pixels", sumOf(values)], ["Bias term, without any pixel", Number(bias)]];
      sum.replaceChildren(sumTable("The same score, by pixels", terms, "Residual (rounding)", `${parts.score.output.name}[${label}]`, Number(score)));
      text.textContent = `Blue pixels speak for ${name}, orange ones against it. The residual is proven to be at most ${formatSmall(Number(residualBound))}.` +
        (interventions.length ? " This map shows the network without your changes." : "");
    } catch (error) {
      if (error.name !== "AbortError") text.textContent = `The map could not be made: ${error.message}`;
    }
  }
  onColours(draw);
  return {
    node: element("div.map", {}, element("h4", {}, "Pixel by pixel"), element("div.beside", {}, element("figure", {}, canvas), element("div", {}, sum, text))),
    show(label, { images, interventions }, index) {
      clearTimeout(timer);
      timer = setTimeout(load, DELAY, label, images[index], interventions);
    },
  };
}
