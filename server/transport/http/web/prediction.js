// The answer, beside the drawing: the label, how sure it is, and the score of each label.

import { element } from "./elements.js";
import { formatNumber, showNumber } from "./numbers.js";
import { largest } from "./pictures.js";

const EMPTY = "Nothing is drawn: an empty picture also gets scores.";
const ANNOUNCE_AFTER = 500; // milliseconds without a new answer: not each answer of a stroke is read out

/**
 * @param {HTMLElement} place
 * @param {{store: object}} app
 */
export function mount(place, { store }) {
  const digit = element("p.prediction-label", { "aria-hidden": "true" }, "–");
  const words = element("p.prediction-words", { "aria-hidden": "true" });
  const count = element("span");
  const changes = element("p.prediction-changes", { hidden: true }, count, element("button.quiet", { type: "button", onclick: undoAll }, "Undo all"));
  const spoken = element("p.visually-hidden", { role: "status", id: "prediction" });
  const bars = element("div.columns", { "aria-hidden": "true" });
  place.append(element("div.prediction", {}, digit, words, bars, changes, spoken));
  let timer = 0;

  function undoAll() {
    store.set({ interventions: [] });
    const heading = place.closest("section").querySelector("h2");
    heading.tabIndex = -1;
    heading.focus({ preventScroll: true }); // the button goes
  }

  function announce(text) {
    clearTimeout(timer);
    timer = setTimeout(() => {
      spoken.textContent = text;
    }, ANNOUNCE_AFTER);
  }

  function render({ model, trace, selected }) {
    if (!trace) return;
    const scores = scoresOf(trace, selected);
    const [best, next] = order(scores);
    const isEmpty = trace.images[Math.min(selected, trace.images.length - 1)].every((pixel) => pixel === 0);
    const changed = changesOf(trace.interventions.length);
    digit.textContent = model.labels[best];
    digit.classList.toggle("is-empty", isEmpty);
    words.replaceChildren(...(isEmpty ? [EMPTY] : [
      "Score ", number(scores[best]), ". Next is ", element("b", {}, model.labels[next]), " with ", number(scores[next]), ".",
    ]));
    changes.hidden = !changed;
    count.textContent = changed;
    renderColumns(bars, model.labels, scores, best);
    const reading = changed ? `The network, ${changed}, reads` : "The network reads";
    announce(isEmpty ? EMPTY : `${reading} ${model.labels[best]}. Score ${formatNumber(scores[best])}; next is ${model.labels[next]} with ${formatNumber(scores[next])}.`);
  }
  store.subscribe(["model", "trace", "selected"], render);
}

/**
 * @param {object} trace
 * @param {number} index of an image
 * @returns {Float32Array} its logits
 */
export function scoresOf(trace, index) {
  const [count, classes] = trace.logits.shape;
  const row = Math.min(index, count - 1);
  return trace.logits.values.subarray(row * classes, (row + 1) * classes);
}

/**
 * @param {ArrayLike<number>} scores
 * @returns {number[]} indices, the largest score first; of equal ones the lower index
 */
export function order(scores) {
  return Array.from(scores, (_, i) => i).sort((a, b) => scores[b] - scores[a] || a - b);
}

function changesOf(count) {
  if (!count) return "";
  return count === 1 ? "with your change" : `with your ${count} changes`;
}

function number(value) {
  const made = element("data");
  showNumber(made, value);
  return made;
}

function renderColumns(place, labels, scores, best) {
  if (place.childElementCount !== labels.length) {
    place.replaceChildren(...labels.map((label) => (
      element("div.tower", {}, element("div.tower-track", {}, element("i")), element("span", {}, label)))));
  }
  const full = largest(scores) || 1;
  labels.forEach((_, i) => {
    const tower = place.children[i];
    const bar = tower.querySelector("i");
    tower.classList.toggle("is-best", i === best);
    bar.className = scores[i] < 0 ? "is-negative" : "is-positive";
    bar.style.transform = `scaleY(${scores[i] / full})`;
  });
}
