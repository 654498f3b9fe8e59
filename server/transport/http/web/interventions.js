// Break it: change the network's insides and see what becomes of the scores.

import { describeChange, formatChange, parsePositions } from "./changes.js";
import { element } from "./elements.js";
import { products } from "./network.js";
import { formatNumber } from "./numbers.js";
import { lazily, onModel, onTrace } from "./panels.js";
import { largest } from "./pictures.js";
import { order } from "./prediction.js";
import { bar, formatSigned, numberOf, scoreTable } from "./sums.js";
import { encodeImages } from "./tensors.js";
import { partsOf, rowOf, shownOf, valuesOf } from "./traces.js";

const PRESET_UNITS = 10;
const KINDS = {
  zero: ["switch off"],
  scale: ["multiply by", "Factor"],
  set: ["set to", "Value"],
  add: ["add", "Number"],
  clamp: ["keep within", "Lowest", "Highest"],
  fromImage: ["take from"],
};

export function mount(place, app) {
  onModel(app.store, (model, subscribe) => {
    const panel = { ...app, model, subscribe, parts: partsOf(model.stages) };
    const content = element("div.pair", {}, element("div.card", {}, ...presets(panel), ownChange(panel), activeChanges(panel)), scoreboard(panel));
    place.replaceChildren(
      element("p.lead", {}, "Which parts does the network need? Switch some off. The server computes everything behind them again."), content,
    );
    let isAsked = false;
    lazily(content, async () => {
      if (isAsked) return;
      isAsked = true;
      const refusal = await refusalOf(panel);
      if (refusal) content.replaceChildren(element("p.card", {}, `This server cannot change its network: ${refusal}.`));
    })();
    subscribe(["images"], ({ images, interventions }) => {
      const kept = interventions.filter((one) => [...(one.images ?? []), one.fromImage ?? 0].every((image) => image < Math.max(1, images.length)));
      if (kept.length < interventions.length) app.store.set({ interventions: kept });
    });
  });
}

/** Why the server makes no changes, asked with one that changes nothing; null if it does. */
async function refusalOf({ api, model: { input, stages } }) {
  try {
    const images = encodeImages([new Uint8Array(input.shape[0] * input.shape[1])], input.shape);
    await api.trace({ images, stages: [{ name: stages[0].name }], interventions: [{ stage: stages[0].name, scale: 1 }] });
    return null;
  } catch (error) {
    return error.code === "invalid_argument" ? error.message : null;
  }
}

function add({ store }, change) {
  store.set({ interventions: [...store.get().interventions, change] });
}

function presets(panel) {
  const { model, parts: { hidden, score }, store, subscribe } = panel;
  const [height, width] = model.input.shape;
  const { name: stage, shape: [size] } = score.inputs;
  const count = Math.min(PRESET_UNITS, size);
  const off = (units) => ({ stage, units: units.slice(0, count).sort((one, other) => one - other), zero: true });
  const preset = (text, make) => element("button", { type: "button", onclick: () => add(panel, make()) }, text);
  const erase = preset("Erase the left half of the picture", () => (
    { stage: model.stages[0].name, units: [...Array(height * width).keys()].filter((pixel) => pixel % width < width / 2), zero: true }));
  const patch = preset("Give it the hidden units of the next digit", () => {
    const { images, selected } = store.get();
    return { stage, images: [selected], fromImage: (selected + 1) % images.length };
  });
  const strong = preset(`Switch off the ${count} strongest units`, () => off(strongest(panel)));
  const buttons = [
    strong,
    preset(`Switch off ${count} random units`, () => off(order(Array.from({ length: size }, Math.random)))),
    preset("Halve all hidden units", () => ({ stage, scale: 0.5 })),
    patch,
  ];
  subscribe(["images", "trace", "parameters", "selected"], (state) => {
    patch.hidden = state.images.length < 2;
    strong.disabled = !shownOf(state);
  });
  return [
    element("h3", {}, "Try"),
    element("div.buttons", {}, ...(hidden ? buttons : []), erase),
    element("p.hint", {}, hidden ? "Strongest: those that add most to the largest score." : ""),
  ];
}

/** The units, the largest contribution to the largest score first. */
function strongest({ store, parts: { score } }) {
  const { trace, image, parameters } = shownOf(store.get());
  const [inputs, outputs] = [score.inputs, score.output].map(({ name }) => valuesOf(trace, name, image));
  return order(products(parameters[score.linear.name].weight, order(outputs)[0], inputs));
}

function ownChange(panel) {
  const { model, store, subscribe } = panel;
  const field = (label, control) => element("label.field", {}, element("span", {}, label), control);
  const select = (options) => element("select", {}, ...options.map(([value, text]) => element("option", { value }, text)));
  const stages = model.stages.slice(0, -1);
  const stage = select(stages.map(({ name }) => [name, name]));
  const kind = select(Object.entries(KINDS).map(([value, [text]]) => [value, text]));
  const units = element("input", { autocomplete: "off", placeholder: "all, or 3, 17, 40..49" });
  const numbers = [0, 1].map(() => element("input", { type: "number", step: "any" }));
  const fields = numbers.map((input) => field("", input));
  const source = element("select");
  const sourceField = field("Digit", source);
  const only = element("input", { type: "checkbox", checked: true });
  const onlyField = element("label.check", {}, only, "this digit only");
  const problem = element("p.problem", { role: "alert" });

  kind.onchange = () => {
    const [, ...names] = KINDS[kind.value];
    fields.forEach((each, i) => {
      each.hidden = i >= names.length;
      each.firstChild.textContent = names[i] ?? "";
    });
    sourceField.hidden = kind.value !== "fromImage";
  };
  kind.onchange();
  subscribe(["images"], ({ images }) => {
    onlyField.hidden = images.length < 2;
    const { value } = source;
    source.replaceChildren(...images.map((_, i) => element("option", { value: i }, `digit ${i + 1}`)));
    source.value = images[value] ? value : 0;
  });

  function onsubmit(event) {
    event.preventDefault();
    problem.textContent = "";
    const { images, selected } = store.get();
    try {
      const { shape } = stages.find(({ name }) => name === stage.value);
      const change = { stage: stage.value, ...changeOf(kind.value, numbers.map((input) => input.value), Number(source.value)) };
      const positions = parsePositions(units.value, shape.reduce((product, length) => product * length, 1));
      if (positions.length) change.units = positions;
      if (only.checked && images.length > 1) change.images = [selected];
      add(panel, change);
    } catch (error) {
      problem.textContent = error.message;
    }
  }
  return element("details", {}, element("summary", {}, "A change of your own"), element(
    "form", { onsubmit, noValidate: true }, field("Stage", stage), field("Units", units), field("Change", kind),
    ...fields, sourceField, onlyField, element("button.primary", {}, "Change it"), problem,
  ));
}

function changeOf(kind, texts, source) {
  const [first, second] = texts.map((text) => (text === "" ? undefined : Number(text)));
  if (kind === "zero") return { zero: true };
  if (kind === "fromImage") return { fromImage: source };
  const isNumber = (value) => value !== undefined && Number.isFinite(Math.fround(value));
  if (!isNumber(first) && !(kind === "clamp" && isNumber(second))) throw new Error("Write a number, for example 0.5.");
  if (kind === "set") return { set: { values: [first] } };
  if (kind !== "clamp") return { [kind]: first };
  if (first > second) throw new Error("The lowest number must not be above the highest.");
  return { clamp: { min: first, max: second } };
}

function activeChanges({ store, subscribe }) {
  const heading = element("h3", { tabIndex: -1 }, "Your changes");
  const none = element("p.hint", {}, "Nothing is changed: this is the network as it was trained.");
  const list = element("ul.changes");
  const keep = (isKept) => {
    store.set({ interventions: store.get().interventions.filter(isKept) });
    heading.focus();
  };
  const reset = element("button", { type: "button", onclick: () => keep(() => false) }, "Undo all changes");
  subscribe(["interventions"], ({ interventions }) => {
    none.hidden = interventions.length > 0;
    reset.hidden = interventions.length < 1;
    list.replaceChildren(...interventions.map((one) => {
      const undo = { type: "button", aria: { label: `Undo: ${describeChange(one)}` }, onclick: () => keep((each) => each !== one) };
      return element("li", {}, element("span", {}, describeChange(one), element("code", {}, formatChange(one))), element("button.quiet", undo, "Undo"));
    }));
  });
  return element("div", {}, heading, none, list, reset);
}

function scoreboard(panel) {
  const { labels } = panel.model;
  const verdict = element("p.verdict", { role: "status" });
  const scores = element("div");
  const card = element("div.card", {}, element("h3", {}, "Scores before and after"), verdict, scores);
  onTrace(panel, card, ({ trace, image }) => {
    const after = rowOf(trace.logits, image);
    const before = rowOf(trace.unchangedLogits ?? trace.logits, image);
    const text = verdictOf(labels, before, after, trace.interventions.length);
    if (verdict.textContent !== text) verdict.textContent = text;
    scores.replaceChildren(pairedScores(labels, before, after));
  });
  return card;
}

function verdictOf(labels, before, after, count) {
  const [was, is] = [before, after].map((scores) => labels[order(scores)[0]]);
  if (!count) return `Nothing is changed. The largest score is that of ${was}.`;
  const changes = count === 1 ? "the change" : `the ${count} changes`;
  return was === is ? `With ${changes} it is still ${is}.` : `With ${changes}, ${was} has become ${is}.`;
}

function pairedScores(labels, before, after) {
  const full = Math.max(largest(before), largest(after));
  return scoreTable("Upper bar: before. Lower bar: after your changes.", ["", "Before", "After", "Change"], labels, after, (i) => {
    const change = after[i] - before[i];
    return [
      element("span.paired", {}, bar(0, before[i], -full, full), bar(0, after[i], -full, full)),
      numberOf(before[i], formatNumber(before[i])), numberOf(after[i], formatNumber(after[i])), numberOf(change, formatSigned(change)),
    ];
  });
}
