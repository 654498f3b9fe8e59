// Reads the model, then mounts every module on its section.

import { createApi } from "./api.js";
import * as batch from "./batch.js";
import { createConnection } from "./connection.js";
import * as drawing from "./drawing.js";
import { startLinks } from "./link.js";
import { createNotices } from "./notices.js";
import * as pipeline from "./pipeline.js";
import * as prediction from "./prediction.js";
import { readSamples, SAMPLE_SHAPE } from "./samples.js";
import { followSections } from "./sections.js";
import { createSheets } from "./sheets.js";
import * as steps from "./steps.js";
import { createStore } from "./store.js";
import { startTracer } from "./tracer.js";
import * as tray from "./tray.js";

const MAX_BATCH = 64;
const FIRST_SAMPLE = 7; // a seven: something to see before anything is drawn
const MODULES = [
  ["drawing", drawing],
  ["drawing", prediction],
  ["drawing", tray],
  ["drawing", batch],
  ["preparation", steps],
  ["pipeline", pipeline],
];

const app = { api: createApi(), store: createStore(), notices: createNotices(document.querySelector("#notices")) };
app.show = followSections(app.store);
app.connection = createConnection(app);
await app.connection.start();

const { model } = app.store.get();
app.sheets = createSheets(app.store, model.input.shape, batchLimit(model));
app.sheets.restore([new Uint8Array(model.input.shape[0] * model.input.shape[1])], 0);
if (!await startLinks(document.querySelector("#copy-link"), app)) await takeFirstSample();
startTracer(app, app.connection);
showModel();
for (const [id, module] of MODULES) {
  mountModule(id, module);
}

/** As many images as the server takes, and as one answer with every value holds. */
function batchLimit({ stages, limits }) {
  const bytesOfImage = 4 * stages.reduce((sum, stage) => sum + stage.shape.reduce((product, length) => product * length, 1), 0);
  return Math.max(1, Math.min(MAX_BATCH, limits.maxBatchImages, Math.floor(limits.maxResponseBytes / (2 * bytesOfImage))));
}

async function takeFirstSample() {
  if (String(model.input.shape) !== String(SAMPLE_SHAPE)) return;
  const samples = await readSamples();
  app.sheets.restore([samples[FIRST_SAMPLE].pixels], 0);
}

function showModel() {
  app.store.subscribe(["model", "connection"], ({ model: served, connection }) => {
    const { name, version, runtime } = served.model;
    const place = document.querySelector("#served");
    place.textContent = `${name} · version ${version} · ${runtime} on ${served.device}`;
    place.dataset.connection = connection;
  });
}

/** A module that fails is reported, and stops no other. */
async function mountModule(id, module) {
  try {
    await module.mount(document.querySelector(`#${id} > .body`), app);
  } catch (error) {
    reportError(error);
  }
}
