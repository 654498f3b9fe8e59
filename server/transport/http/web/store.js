// One observable state.

/**
 * State of the page:
 *   model           GetModelResponse as api.getModel decodes it, or null
 *   parameters      {[stage]: {weight, bias: Float32Array, shape: [outputs, inputs]}}, or null
 *   images          Uint8Array[], pixels 0..255 of each image of the batch
 *   selected        index of the image that is looked at
 *   trace           TraceResponse of all images as api.trace decodes it, or null
 *   interventions   Intervention messages in JSON
 *   connection      "connected", "lost" or "unauthenticated"
 *   focus           the unit that is looked into: {stage: name, unit: index}, or null
 *   panel           id of the section that is read
 */
export const INITIAL_STATE = {
  model: null,
  parameters: null,
  images: [],
  selected: 0,
  trace: null,
  interventions: [],
  connection: "connected",
  focus: null,
  panel: "pipeline",
};

/**
 * @param {object} initial
 * @returns {{get: () => object, set: (changes: object) => void,
 *   subscribe: (keys: string[], listener: (state: object) => void) => () => void}}
 *   A listener is called at once, and after each change of one of its keys. Values are
 *   compared by identity: put a new object or array in place of the old one.
 */
export function createStore(initial = INITIAL_STATE) {
  let state = Object.freeze({ ...initial });
  const subscriptions = new Set();

  function tell(subscription) {
    if (subscription.keys.every((key) => Object.is(state[key], subscription.seen[key]))) return;
    subscription.seen = state;
    try {
      subscription.listener(state);
    } catch (error) {
      reportError(error);
    }
  }

  return {
    get: () => state,
    set(changes) {
      state = Object.freeze({ ...state, ...changes });
      for (const subscription of [...subscriptions]) tell(subscription);
    },
    subscribe(keys, listener) {
      const subscription = { keys, listener, seen: {} };
      subscriptions.add(subscription);
      tell(subscription);
      return () => subscriptions.delete(subscription);
    },
  };
}
