// Mounts every module on its section.

import { createApi } from "./api.js";
import { createStore } from "./store.js";

const MODULES = [];

const app = { api: createApi(), store: createStore() };

for (const [id, mount] of MODULES) {
  try {
    mount(document.querySelector(`#${id} > .body`), app);
  } catch (error) {
    reportError(error);
  }
}
