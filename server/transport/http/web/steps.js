// What happens to a drawing before the network: each step of its preparation as a picture.

import { element } from "./elements.js";
import { drawImage, onColours } from "./pictures.js";

const SVG = "http://www.w3.org/2000/svg";
const STEPS = [
  { name: "picture", title: "Your drawing", text: "Find the box around the ink." },
  { name: "box", title: "Crop", text: "Cut out the box." },
  { name: "scaled", title: "Scale", text: "Make its longer side 20 pixels." },
  { name: "centred", title: "Centre", text: "Move its centre of mass to the middle." },
];

/**
 * @param {HTMLElement} place
 * @param {{store: object}} app
 */
export function mount(place, { store }) {
  const [height, width] = store.get().model.input.shape;
  const note = element("p.hint.steps-note", { role: "note" });
  const frames = STEPS.map(frameOf);
  place.append(
    element("p.lead", {}, `The network knows digits of one size, in the middle of ${height} × ${width} pixels. Your browser brings the drawing to that form.`),
    element("ol.steps.card", {}, ...frames.map(({ item }) => item)),
    note,
  );

  function render() {
    const { sheets, selected } = store.get();
    const sheet = sheets[selected];
    for (const frame of frames) {
      const step = sheet.steps.find(({ name }) => name === frame.name);
      frame.show(step ?? (frame.name === "centred" ? { pixels: sheet.pixels, width, height } : null));
    }
    note.textContent = noteOn(sheet);
  }
  store.subscribe(["sheets", "selected"], render);
  onColours(render);
}

function noteOn(sheet) {
  if (sheet.warnings.length) return `Note: ${sheet.warnings.join("; ")}.`;
  if (sheet.steps.length === 1) return "This image has the form already, so nothing was changed.";
  return sheet.steps.length ? "" : "Nothing is drawn yet: every pixel is 0.";
}

function frameOf({ name, title, text }) {
  const canvas = element("canvas", { role: "img", "aria-label": title });
  const size = element("span.shape");
  const marks = document.createElementNS(SVG, "svg");
  marks.setAttribute("aria-hidden", "true");
  marks.setAttribute("class", "marks");
  const item = element("li.step", {},
    element("div.step-picture", {}, canvas, marks),
    element("div", {}, element("p.step-title", {}, title), element("p", {}, size), element("p.hint", {}, text)));

  function show(step) {
    item.classList.toggle("is-empty", !step);
    marks.replaceChildren();
    size.textContent = step ? `${step.height} × ${step.width}` : "–";
    if (!step) {
      canvas.width = 0;
      return;
    }
    drawImage(canvas, step.pixels, step.width, 255);
    canvas.classList.toggle("is-fine", step.width > 100);
    marks.setAttribute("viewBox", `0 0 ${step.width} ${step.height}`);
    if (step.box) marks.append(shape("rect", { x: step.box.left, y: step.box.top, width: step.box.width, height: step.box.height }));
    if (name === "centred") {
      marks.append(
        shape("line", { x1: step.width / 2, x2: step.width / 2, y1: 0, y2: step.height }),
        shape("line", { x1: 0, x2: step.width, y1: step.height / 2, y2: step.height / 2 }),
      );
    }
  }
  return { name, item, show };
}

function shape(kind, attributes) {
  const made = document.createElementNS(SVG, kind);
  for (const [key, value] of Object.entries({ ...attributes, "vector-effect": "non-scaling-stroke" })) {
    made.setAttribute(key, value);
  }
  return made;
}
