// Three questions about the reader's own trace, and the key insight.

import { element } from "./elements.js";
import { products } from "./network.js";
import { formatNumber, formatShape } from "./numbers.js";
import { onModel } from "./panels.js";
import { drawImage } from "./pictures.js";
import { order } from "./prediction.js";
import { formatSigned } from "./sums.js";
import { partsOf, shownOf, valuesOf } from "./traces.js";

const CHOICES = 4;
const FORWARD = {
  question: "What does the forward method of a model mainly do?",
  choices: ["It loads the data", "It calculates the loss", "It defines how the input moves through the layers", "It updates the weights"],
  right: 2,
  explanation: "Each stage of the pipeline is a line of forward. A data loader loads the data, a loss function calculates the loss, and an optimiser updates the weights: none of these runs while you draw.",
};

export function mount(place, { store }) {
  onModel(store, (model, subscribe) => {
    const holder = element("div");
    let round = 0;
    const begin = element("button.primary", { type: "button", onclick: () => {
      holder.replaceChildren(quiz(model, shownOf(store.get()), round));
      round += 1;
      begin.textContent = "New questions from the digit as it is now";
      begin.className = "";
      holder.querySelector("h3").focus();
    } }, "Ask me about my digit");
    place.replaceChildren(
      element("p.lead", {}, "Three questions about the digit that you see now. They keep its numbers, also if you draw on."), holder, begin,
    );
    subscribe(["trace", "parameters", "selected"], (state) => {
      begin.disabled = !shownOf(state);
    });
  });
}

export function mountInsight(place, { store }) {
  onModel(store, ({ stages, parameterCount, labels }) => place.replaceChildren(
    element("p.insight", {}, "forward is the heart of a model: step by step, it turns raw input into a prediction."),
    element("p.lead", {}, `Your drawing went in as ${formatShape(stages[0].shape)} numbers. It came out as ${labels.length} scores, and the largest is the prediction. ` +
      `On the way there was only multiplying, adding and cutting off at 0, with ${parameterCount.toLocaleString("en")} numbers that training found. ` +
      "forward uses these numbers; training changes them. It runs forward, measures the loss, and moves each number a little so that the loss falls. Then it does that again, thousands of times."),
  ));
}

function quiz(model, shown, round) {
  const parts = partsOf(model.stages);
  const canvas = element("canvas", { role: "img", aria: { label: "The digit of this quiz" } });
  drawImage(canvas, shown.trace.images[shown.image], model.input.shape[1], 255);
  const isAboutRelu = parts.hidden && round % 2 === 0;
  const questions = [
    shapeQuestion(model.stages, shown.trace.logits.shape[0], round), FORWARD,
    isAboutRelu ? reluQuestion(parts.hidden, shown) : contributionQuestion(model.labels, parts.score, shown),
  ];
  const score = element("p.verdict", { role: "status" });
  const answers = [];
  function onAnswer(isRight) {
    answers.push(isRight);
    const right = `${answers.filter(Boolean).length} of ${answers.length} right`;
    score.textContent = answers.length < questions.length ? `${right} so far.` : `Done: ${right}.`;
  }
  return element(
    "div.quiz", {}, element("div.beside", {}, canvas, element("h3", { tabIndex: -1 }, "About this digit")),
    ...questions.map((question, i) => form(question, i + 1, onAnswer)), score,
  );
}

function form({ question, choices, right, explanation }, number, onAnswer) {
  const inputs = choices.map((_, value) => element("input", { type: "radio", name: "choice", value }));
  const labels = choices.map((text, i) => element("label.answer", {}, inputs[i], element("span", {}, text)));
  const told = element("p", { tabIndex: -1 });
  const button = element("button", {}, "Check my answer");
  function tell(text) {
    told.textContent = text;
    told.focus();
  }
  function onsubmit(event) {
    event.preventDefault();
    const chosen = inputs.findIndex((input) => input.checked);
    if (chosen < 0) return tell("Choose an answer first.");
    for (const input of inputs) input.disabled = true;
    button.hidden = true;
    if (chosen !== right) mark(labels[chosen], "wrong", "your answer");
    mark(labels[right], "right", "right");
    onAnswer(chosen === right);
    return tell(`${chosen === right ? "Right." : `No, it is: ${choices[right]}.`} ${explanation}`);
  }
  return element("form.card.question", { onsubmit, noValidate: true }, element("fieldset", {}, element("legend", {}, `${number}. ${question}`), ...labels), button, told);
}

function mark(label, className, text) {
  label.classList.add(className);
  label.append(element("strong", {}, text));
}

/** The right answer among others, in an order that tells nothing. */
function mixed(right, others) {
  const choices = [...new Set([right, ...others])].slice(0, CHOICES);
  const places = order(choices.map(Math.random));
  return { choices: places.map((place) => choices[place]), right: places.indexOf(0) };
}

function shapeQuestion(stages, count, round) {
  const asked = stages.filter(({ operation }) => ["Flatten", "Linear"].includes(operation));
  const stage = asked[(round + 1) % asked.length];
  const right = formatShape([count, ...stage.shape]);
  const others = stages.map(({ shape }) => formatShape([count, ...shape]));
  return {
    question: `There ${count === 1 ? "is 1 digit" : `are ${count} digits`} in your batch. Which shape does ${stage.name}'s output have?`,
    ...mixed(right, [formatShape([...stage.shape, count + 1]), ...others]),
    explanation: `The first number counts the digits: ${count} here, and the same at every stage. ${stage.name} makes ${formatShape(stage.shape)} numbers of each.`,
  };
}

function reluQuestion({ linear, relu }, { trace, image }) {
  const [sums, outputs] = [linear, relu].map(({ name }) => valuesOf(trace, name, image));
  const count = outputs.length;
  const zeros = outputs.filter((value) => value === 0).length;
  return {
    question: `How many of the ${count} hidden units of your digit are 0 after ${relu.name}?`,
    ...mixed(String(zeros), [count - zeros, count, 0, Math.round(zeros / 2), zeros + 1].map(String)),
    explanation: reluExplanation(linear.name, sums, outputs),
  };
}

/** What became of the sums: counted, for a change may set an output to any value. */
function reluExplanation(name, sums, outputs) {
  const of = { off: 0, more: 0, on: 0, other: 0, same: 0 };
  sums.forEach((sum, i) => {
    if (sum <= 0) of.off += 1;
    if (sum <= 0 && outputs[i] !== 0) of.on += 1;
    else if (sum > 0 && outputs[i] === 0) of.more += 1;
    else if (sum > 0) of[outputs[i] === sum ? "same" : "other"] += 1;
  });
  const text = `${of.off} of the sums of ${name} are not above 0, and ReLU makes them 0. `;
  const changed = [
    of.more && `switched off ${of.more} more`, of.on && `switched ${of.on} of them on again`, of.other && `gave ${of.other} of the others another value`,
  ].filter(Boolean).join(", ");
  return text + (changed ? `Your changes ${changed}; ${of.same} pass as they are.` : `The other ${of.same} pass as they are.`);
}

function contributionQuestion(labels, { inputs, linear, output }, { trace, image, parameters }) {
  const [before, scores] = [inputs, output].map(({ name }) => valuesOf(trace, name, image));
  const [label] = order(scores);
  const terms = products(parameters[linear.name].weight, label, before);
  const ranking = order(terms);
  const others = [ranking.at(-1), ranking[Math.floor(ranking.length / 2)], ranking[Math.min(3, ranking.length - 1)]];
  return {
    question: `Which unit of ${inputs.name} adds most to the score of ${labels[label]}?`,
    ...mixed(`unit ${ranking[0]}`, others.map((unit) => `unit ${unit}`)),
    explanation: `Unit ${ranking[0]} adds ${formatSigned(terms[ranking[0]])}: its output ${formatNumber(before[ranking[0]])} times its weight. The whole score is ${formatNumber(scores[label])}.`,
  };
}
