// Keeps the trace in step with the drawings: one request at a time, the newest drawing wins.

import { encodeImages } from "./tensors.js";

/**
 * Trace the images whenever they, the interventions or the model change.
 * @param {{api: object, store: object}} app the store gets `trace` (with the `images` and
 *   `interventions` that it is of) and `tracing`
 * @param {{fail: (error: Error) => void, answered: () => void, look: () => void}} connection told of failed and
 *   answered calls, and asked to look at the model when another one answers
 */
export function startTracer({ api, store }, connection) {
  let wanted = false;

  async function run() {
    wanted = true;
    if (store.get().tracing || store.get().connection !== "connected") return;
    store.set({ tracing: true });
    while (wanted && store.get().connection === "connected") {
      wanted = false;
      try {
        await traceOnce();
      } catch (error) {
        connection.fail(error);
      }
    }
    store.set({ tracing: false });
  }

  async function traceOnce() {
    const { model, images, interventions } = store.get();
    const trace = await api.trace({
      images: encodeImages(images, model.input.shape),
      detail: "DETAIL_FULL",
      interventions,
      unchangedLogits: interventions.length > 0,
      certify: true,
    });
    connection.answered();
    const now = store.get();
    const { name, version } = model.model;
    if (trace.model.name !== name || trace.model.version !== version) connection.look();
    else if (now.images.length === images.length && now.model === model) {
      store.set({ trace: { ...trace, images, interventions } });
    }
  }

  store.subscribe(["images", "interventions", "model", "connection"], ({ model, images }) => {
    if (model && images.length) run();
  });
}
