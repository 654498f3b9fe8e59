// Reads the model, then mounts every module on its section.

import { createApi } from "./api.js";
import * as batch from "./batch.js";
import { createConnection } from "./connection.js";
import * as drawing from "./drawing.js";
import * as interventions from "./interventions.js";
import { startLinks } from "./link.js";
import { createNotices } from "./notices.js";
import * as pipeline from "./pipeline.js";
import * as prediction from "./prediction.js";
import * as quiz from "./quiz.js";
import { followSections } from "./sections.js";
import { createSheets } from "./sheets.js";
import * as steps from "./steps.js";
import { createStore } from "./store.js";
import { startTracer } from "./tracer.js";
import * as training from "./training.js";
import * as tray from "./tray.js";
import * as trust from "./trust.js";
import * as units from "./units.js";

const MAX_BATCH = 64;
/** A three, so that there is something to see before anything is drawn. */
export const EXAMPLE = [[
  84, 66, 90, 61, 96, 56, 103, 52, 110, 48, 118, 45, 128, 43, 137, 42, 146, 42, 154, 44,
  163, 47, 170, 51, 176, 56, 180, 62, 183, 69, 184, 77, 184, 84, 182, 91, 179, 98, 175, 104,
  170, 110, 164, 115, 156, 118, 149, 121, 142, 124, 135, 126, 128, 128, 123, 129, 122, 130, 125, 130,
  133, 130, 141, 131, 150, 132, 159, 135, 168, 138, 177, 143, 184, 148, 189, 154, 194, 162, 197, 170,
  198, 178, 198, 186, 196, 194, 192, 203, 188, 210, 182, 217, 175, 223, 167, 228, 158, 232, 149, 235,
  138, 236, 128, 237, 118, 236, 109, 233, 101, 229, 92, 224, 84, 220,
]];
const MODULES = [
  ["drawing", drawing],
  ["drawing", prediction],
  ["drawing", tray],
  ["drawing", batch],
  ["preparation", steps],
  ["pipeline", pipeline],
  ["units", units],
  ["interventions", interventions],
  ["trust", trust],
  ["training", training],
  ["quiz", quiz],
  ["insight", { mount: quiz.mountInsight }],
];

export const app = { api: createApi(), store: createStore(), notices: createNotices(document.querySelector("#notices")) };
app.show = followSections(app.store);
app.connection = createConnection(app);
await app.connection.start();

const { model } = app.store.get();
app.sheets = createSheets(app.store, model.input.shape, batchLimit(model));
app.sheets.showExample(EXAMPLE);
await startLinks(document.querySelector("#copy-link"), app);
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
