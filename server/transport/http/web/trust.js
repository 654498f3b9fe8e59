// Trust: proven bounds, a certificate, the same pass in this browser, and the server's runtimes.

import { element } from "./elements.js";
import { forward, largestDifference, pixelsOf } from "./network.js";
import { formatNumber } from "./numbers.js";
import { onModel, onTrace } from "./panels.js";
import { largest } from "./pictures.js";
import { dataTable, formatSmall, numberOf, scoreTable } from "./sums.js";
import { encodeImages } from "./tensors.js";
import { rowOf } from "./traces.js";

const DIGITS = 4; // of a score
const SCALE = 10 ** DIGITS;
const smallNumber = (value) => numberOf(value, formatSmall(value));

export function mount(place, app) {
  onModel(app.store, (model, subscribe) => {
    const [certificate, scores, own] = ["article.card", "article.card", "article.card"].map((name) => element(name));
    const problem = element("p.problem", { role: "status" });
    const content = element("div.pair", {}, element("div.stack", {}, certificate, own), scores);
    place.replaceChildren(
      element("p.lead", {}, "A computer rounds every sum a little. How far off can a score be, and could that change the answer? The server proves it for each digit."),
      problem, content, runtimes(app, model),
    );
    let last = null;
    onTrace({ ...app, subscribe }, content, async (shown) => {
      last = shown;
      try {
        const pixels = shown.trace.images[shown.image];
        const { trace, row } = await unchanged(app, model, shown, pixels);
        if (last !== shown) return;
        const mine = forward(model.stages, shown.parameters, pixelsOf(pixels));
        certificate.replaceChildren(element("h3", {}, "Certificate"), ...certificateOf(model.labels, trace.certificates[row], trace, row));
        scores.replaceChildren(element("h3", {}, "Every score, with its proven bound"), ...whiskers(model.labels, trace, row, mine));
        own.replaceChildren(element("h3", {}, "Computed again, in your browser"), ...comparison(trace, row, mine));
        problem.textContent = shown.trace.interventions.length ? "This section shows the network without your changes." : "";
      } catch (error) {
        if (error.name !== "AbortError") problem.textContent = `The proof could not be made: ${error.message}`;
      }
    });
  });
}

/** The trace and its row for the image, without changes. */
async function unchanged({ api }, { input }, { trace, image }, pixels) {
  if (!trace.interventions.length) return { trace, row: image };
  const request = { images: encodeImages([pixels], input.shape), detail: "DETAIL_FULL", certify: true };
  return { trace: await api.trace(request, { key: "trust" }), row: 0 };
}

function certificateOf(labels, { predictedClass, nearestClass, gap, bound, certified }, trace, row) {
  const scores = rowOf(trace.logits, row);
  const [high, low] = [predictedClass, nearestClass].map((label) => formatNumber(scores[label], DIGITS));
  const fitting = gap < 1 ? formatSmall(gap) : formatNumber(Math.round(scores[predictedClass] * SCALE) / SCALE - Math.round(scores[nearestClass] * SCALE) / SCALE, DIGITS);
  const each = trace.stages.at(-1).bound;
  const [best, next] = [labels[predictedClass], labels[nearestClass]];
  const range = Math.max(gap, bound) || 1;
  const line = (name, value, className, text = formatSmall(value)) => {
    const fill = element(`i.${className}`);
    fill.style.width = `${(100 * value) / range}%`;
    return [element("dt", {}, name), element("dd", {}, element("span.length", { aria: { hidden: "true" } }, fill), numberOf(value, text))];
  };
  return [
    element(certified ? "p.verdict.certified" : "p.verdict", {}, certified ? `Certified: ${best}` : `Not certified: ${best} or ${next}`),
    element("dl.lengths", {}, ...line(`Lead of ${best} over ${next}: ${high} − ${scores[nearestClass] < 0 ? `(${low})` : low}`, gap, "above", fitting), ...line("Most that rounding can take from it", bound, "below")),
    element("p.hint", {}, certified
      ? "No rounding, on any computer and in any order of adding, can take that lead: every runtime (a program that computes the network) answers the same. The arithmetic is sure; the answer may still be wrong."
      : "The lead is so small that a computer that adds in another order could answer otherwise."),
    element("p.hint", {}, bound < 2 * each
      ? `Each score may be off by ${formatSmall(each)}, the lead by less than twice that: an error that both scores share cancels in the difference.` : ""),
  ];
}

function whiskers(labels, trace, row, mine) {
  const { name, bound } = trace.stages.at(-1);
  const values = rowOf(trace.logits, row);
  const cells = (i) => {
    const difference = mine.get(name)[i] - values[i];
    const dot = element("i");
    dot.style.left = `${50 + 45 * Math.max(-1, Math.min(1, difference / bound))}%`;
    return [
      numberOf(values[i], formatNumber(values[i], DIGITS)), element("span.whisker", { aria: { hidden: "true" } }, dot),
      numberOf(difference, (difference > 0 ? "+" : "") + formatSmall(difference)),
    ];
  };
  const times = Number((largest(values) / bound).toPrecision(1)).toLocaleString("en");
  return [
    element("p", {}, "Each score is exact to ", numberOf(bound, `±${formatSmall(bound)}`),
      `. The lines with two ends, the whiskers, show this range, about ${times} times as long as the scale of the scores would make them: otherwise you could not see them. The dots are your browser's results. They sit in the middle: real rounding is far smaller than what could happen.`),
    scoreTable("The whisker goes from −bound to +bound", ["Score", "Whisker", "Your browser"], labels, values, cells),
  ];
}

function comparison({ stages }, row, mine) {
  const differences = stages.map((stage) => largestDifference(mine.get(stage.name), rowOf(stage, row)));
  const share = Math.max(...stages.map(({ bound }, i) => (differences[i] ? differences[i] / bound : 0)));
  return [
    element("p", {}, "This page has the network's weights and computes the pass once more, in JavaScript: one multiplication and one addition at a time, in float32, which keeps about 7 digits of each number. ", share <= 2
      ? `It differs from the server by at most ${formatSmall(100 * share)} % of the bound. Each of the two may be off by one bound, in opposite directions: they may differ by two bounds, which is 200 %.`
      : "It differs from the server by more than the proof allows: one of the two is wrong."),
    dataTable("Your browser beside the server", ["Stage", "Largest difference", "Bound"], stages.map((stage, i) => (
      [element("code", {}, stage.name), smallNumber(differences[i]), smallNumber(stage.bound)]))),
  ];
}

function runtimes({ api, store }, model) {
  const status = element("p.hint", { role: "status" });
  const result = element("div.scroll", { tabIndex: 0, role: "region", aria: { label: "Runtimes compared" }, hidden: true });
  const button = element("button", { type: "button", onclick: async () => {
    status.textContent = "The server computes your digits in every runtime that it has. The first time takes some seconds.";
    try {
      const { images } = store.get();
      const answer = await api.compare({ images: encodeImages(images, model.input.shape) }, { key: "compare" });
      status.textContent = summaryOf(answer, images.length);
      result.hidden = false;
      result.replaceChildren(runtimeTable(answer));
    } catch (error) {
      if (error.name !== "AbortError") status.textContent = `They could not be compared: ${error.message}`;
    }
  } }, "Compare the runtimes");
  return element(
    "article.card", {}, element("h3", {}, "Other programs, the same network"),
    element("p", {}, "A runtime is a program that computes the network. The server runs your digits in each that it has, and compares it with the exact forward pass (float64, about 16 digits)."),
    button, status, result,
  );
}

function summaryOf({ runtimes: compared, certifiedShare = 0 }, count) {
  const apart = compared.filter(({ divergesAt }) => divergesAt).map(({ runtime, divergesAt }) => `${runtime} leaves its bound at ${divergesAt}. `);
  const different = compared.reduce((sum, { differentDecisions = 0 }) => sum + Number(differentDecisions), 0);
  return `${compared.length} runtimes, ${count} ${count === 1 ? "digit" : "digits"}. ${apart.join("") || "All stay within their bounds at every stage. "}` +
    `Different decisions: ${different}. Certified: ${formatNumber(100 * certifiedShare, 0)} %.`;
}

function runtimeTable({ runtimes: compared }) {
  const rows = compared.flatMap(({ runtime, stages, differentDecisions = 0 }) => stages.map(({ stage, maxError = 0, maxBoundShare = 0 }) => [
    runtime, element("code", {}, stage), smallNumber(Number(maxError)),
    numberOf(maxBoundShare, `${formatSmall(100 * Number(maxBoundShare))} %`), numberOf(differentDecisions, String(differentDecisions)),
  ]));
  return dataTable("Distance from the exact forward pass", ["Runtime", "Stage", "Largest error", "Of its bound", "Different decisions"], rows);
}
