// The pad: drawing with mouse, touch, pen or keys; pictures from files.

import { element } from "./elements.js";
import { drawImage, onColours, palette } from "./pictures.js";
import { isBlank } from "./sheets.js";
import { drawStroke, PAD_SIDE } from "./strokes.js";

const KEY_STEP = 10;
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const MAX_PICTURE_PIXELS = 1024 * 1024;

/**
 * @param {HTMLElement} place
 * @param {{store: object, sheets: object}} app
 */
export function mount(place, { store, sheets }) {
  const canvas = element("canvas.pad-canvas", {
    tabIndex: 0, role: "application", "aria-label": "Drawing pad", "aria-describedby": "pad-help",
  });
  const invitation = element("p.pad-invitation", {}, "Draw a digit here");
  const cursor = element("span.pad-cursor", { hidden: true });
  const failure = element("p.hint.pad-failure", { role: "status" });
  const undo = element("button", { type: "button", onclick: () => sheets.undo() }, "Undo");
  const clear = element("button", { type: "button", onclick: () => sheets.clear() }, "Clear");
  const file = element("input.visually-hidden", { type: "file", accept: "image/*", id: "picture-file" });
  const fileLabel = element("label.button", { htmlFor: "picture-file" }, "Picture…");
  place.append(
    element("div.pad", {}, canvas, invitation, cursor, failure),
    element("p.visually-hidden", { id: "pad-help" }, "Draw with mouse, finger or pen. With keys: the arrows move the pen, Space puts it down and lifts it. Or take a sample below."),
    element("div.pad-tools", {}, undo, clear, element("span.file", {}, file, fileLabel)),
  );

  const pen = createPen(store, sheets, (stroke, from) => drawStroke(canvas.getContext("2d"), stroke, from));
  followPointer(canvas, pen);
  followKeys(canvas, cursor, pen);
  followFiles(place.querySelector(".pad"), file, sheets, (text) => {
    failure.textContent = text;
  });

  function render() {
    const sheet = store.get().sheets[store.get().selected];
    paint(canvas, sheet);
    invitation.hidden = !isBlank(sheet);
    undo.disabled = !sheet.past;
    clear.disabled = isBlank(sheet);
    failure.textContent = sheet.failed ?? sheet.warnings.join(" ");
  }
  store.subscribe(["sheets", "selected"], render);
  onColours(render);
  new ResizeObserver(render).observe(canvas);
}

/** Draws as fast as answers come: while one is waited for, points are only collected and painted. */
function createPen(store, sheets, paintFrom) {
  let stroke = null;
  let behind = false;

  function draw() {
    behind = false;
    sheets.draw(stroke);
  }

  store.subscribe(["tracing"], ({ tracing }) => {
    if (!tracing && behind) queueMicrotask(() => behind && draw());
  });
  return {
    isDown: () => stroke !== null,
    down(point) {
      stroke = [...point];
      draw();
    },
    move(points) {
      const from = stroke.length / 2;
      stroke.push(...points.flat());
      behind = store.get().tracing;
      if (behind) paintFrom(stroke, from);
      else draw();
    },
    up() {
      if (behind) draw();
      stroke = null;
    },
  };
}

function followPointer(canvas, pen) {
  let pointer = null;

  function pointOf(event) {
    const frame = canvas.getBoundingClientRect();
    return [[event.clientX - frame.left, frame.width], [event.clientY - frame.top, frame.height]]
      .map(([offset, side]) => Math.round((10 * PAD_SIDE * offset) / side) / 10);
  }

  canvas.addEventListener("pointerdown", (event) => {
    if (pointer !== null || event.button !== 0) return;
    pointer = event.pointerId;
    canvas.setPointerCapture(pointer);
    pen.down(pointOf(event));
    event.preventDefault();
    canvas.focus({ preventScroll: true, focusVisible: false });
  });
  canvas.addEventListener("pointermove", (event) => {
    if (event.pointerId !== pointer) return;
    const events = event.getCoalescedEvents?.() ?? [];
    pen.move((events.length ? events : [event]).map(pointOf));
  });
  for (const end of ["pointerup", "pointercancel", "lostpointercapture"]) {
    canvas.addEventListener(end, (event) => {
      if (event.pointerId !== pointer) return;
      pointer = null;
      pen.up();
    });
  }
}

function followKeys(canvas, cursor, pen) {
  let position = [PAD_SIDE / 2, PAD_SIDE / 2];

  function show() {
    cursor.hidden = false;
    cursor.classList.toggle("is-down", pen.isDown());
    cursor.style.left = `${(100 * position[0]) / PAD_SIDE}%`;
    cursor.style.top = `${(100 * position[1]) / PAD_SIDE}%`;
  }

  canvas.addEventListener("keydown", (event) => {
    const arrow = ARROWS[event.key];
    if (arrow) {
      position = position.map((value, axis) => Math.min(PAD_SIDE, Math.max(0, value + KEY_STEP * arrow[axis])));
      if (pen.isDown()) pen.move([position]);
    } else if (event.key === " ") {
      if (pen.isDown()) pen.up();
      else pen.down(position);
    } else if (event.key === "Escape" && pen.isDown()) pen.up();
    else return;
    event.preventDefault();
    show();
  });
  canvas.addEventListener("blur", () => {
    if (pen.isDown()) pen.up();
    cursor.hidden = true;
  });
}

function followFiles(target, input, sheets, complain) {
  async function take(file) {
    if (!file) return;
    try {
      complain(sheets.usePicture(await readPicture(file)) ?? "");
    } catch {
      complain(`${file.name} is not a picture that this browser can read.`);
    }
  }

  input.addEventListener("change", () => {
    take(input.files[0]);
    input.value = "";
  });
  for (const name of ["dragover", "dragleave", "drop"]) {
    target.addEventListener(name, (event) => {
      event.preventDefault();
      target.classList.toggle("is-target", name === "dragover");
    });
  }
  target.addEventListener("drop", (event) => take(event.dataTransfer.files[0]));
}

/** Return a picture as RGBA bytes; a large one is made smaller. */
async function readPicture(file) {
  const bitmap = await createImageBitmap(file);
  const scale = Math.min(1, Math.sqrt(MAX_PICTURE_PIXELS / (bitmap.width * bitmap.height)));
  const [width, height] = [bitmap.width, bitmap.height].map((side) => Math.max(1, Math.round(side * scale)));
  const context = Object.assign(document.createElement("canvas"), { width, height })
    .getContext("2d", { willReadFrequently: true });
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, width, height);
  bitmap.close();
  return context.getImageData(0, 0, width, height);
}

function paint(canvas, sheet) {
  const side = Math.round(canvas.clientWidth * devicePixelRatio) || PAD_SIDE;
  if (canvas.width !== side) Object.assign(canvas, { width: side, height: side });
  const context = canvas.getContext("2d");
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.clearRect(0, 0, side, side);
  if (sheet.picture) paintPicture(context, sheet.picture, side);
  context.setTransform(side / PAD_SIDE, 0, 0, side / PAD_SIDE, 0, 0);
  context.strokeStyle = `rgb(${palette().ink})`;
  for (const stroke of sheet.strokes) drawStroke(context, stroke);
}

function paintPicture(context, { image, ink, width, height }, side) {
  const layer = document.createElement("canvas");
  if (ink) drawImage(layer, ink, width, 255);
  else Object.assign(layer, { width, height }).getContext("2d").putImageData(image, 0, 0);
  const scale = side / Math.max(width, height);
  context.imageSmoothingEnabled = scale < 1;
  context.drawImage(layer, (side - width * scale) / 2, (side - height * scale) / 2, width * scale, height * scale);
}
