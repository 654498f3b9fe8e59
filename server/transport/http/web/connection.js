// The state of the server as the person is told it: lost, busy, asking for a token, reloaded.

import { element } from "./elements.js";

const POLL = 10_000; // milliseconds between looks at the served model, while the page is seen
const RETRY = [500, 1000, 2000, 4000]; // milliseconds before each new try to reach the server
const LOST = new Set(["unreachable", "unavailable", "deadline_exceeded"]);
const BUSY_SECONDS = 1;

/**
 * @param {HTMLElement} place
 * @param {{api: object, store: object, notices: object}} app
 * @returns {{fail: (error: Error) => void, start: () => Promise<void>}} `fail` takes the error of any
 *   call; `start` resolves when the model has been read for the first time
 */
export function createConnection({ api, store, notices }) {
  let tries = 0;
  let timer = 0;
  let resolveStart;
  const started = new Promise((resolve) => {
    resolveStart = resolve;
  });

  async function look() {
    clearTimeout(timer);
    try {
      await takeModel(await api.getModel());
      tries = 0;
      recover();
      timer = setTimeout(lookIfSeen, POLL);
    } catch (error) {
      fail(error);
    }
  }

  function lookIfSeen() {
    if (document.hidden) timer = setTimeout(lookIfSeen, POLL);
    else look();
  }

  async function takeModel(model) {
    const before = store.get().model;
    if (before && sameModel(before, model)) return;
    store.set({ model, trace: null, parameters: null });
    if (before) {
      notices.show("reload", `The server now serves version ${model.model.version} of ${model.model.name}. Everything here is of the new version.`, { dismissable: true });
    }
    resolveStart();
    await readParameters(model);
  }

  async function readParameters(model) {
    try {
      const parameters = await api.getParameters({});
      if (store.get().model === model) store.set({ parameters });
    } catch (error) {
      if (LOST.has(error.code) || error.code === "unauthenticated") throw error;
      store.set({ parameters: null }); // this version has none to show
    }
  }

  function recover() {
    if (store.get().connection !== "connected") notices.show("connection", "The server is back.", { seconds: 4 });
    store.set({ connection: "connected" });
  }

  function fail(error) {
    if (error.name === "AbortError") return;
    if (error.code === "unauthenticated") askForToken(error);
    else if (LOST.has(error.code)) lose(error);
    else if (error.code === "resource_exhausted" && error.status !== 413) wait(error);
    else notices.show("request", error.message, { dismissable: true });
  }

  function lose(error) {
    const text = error.code === "unreachable"
      ? "The server does not answer. Trying again…"
      : "The server takes no requests now; it may be shutting down. Trying again…";
    store.set({ connection: "lost" });
    notices.show("connection", text);
    retry(error.retrySeconds === null ? RETRY[Math.min(tries, RETRY.length - 1)] : 1000 * error.retrySeconds);
    tries += 1;
  }

  function wait(error) {
    const seconds = error.retrySeconds ?? BUSY_SECONDS;
    store.set({ connection: "lost" });
    notices.show("connection", `The server is busy. Trying again in ${Math.ceil(seconds)} s…`);
    retry(1000 * seconds);
  }

  function retry(milliseconds) {
    clearTimeout(timer);
    timer = setTimeout(look, milliseconds);
  }

  function askForToken(error) {
    clearTimeout(timer);
    store.set({ connection: "unauthenticated" });
    const input = element("input", { type: "password", id: "token", autocomplete: "off", required: true });
    const form = element("form.token", {
      onsubmit(event) {
        event.preventDefault();
        api.setToken(input.value.trim());
        look();
      },
    }, element("label", { htmlFor: "token" }, "Token"), input, element("button.primary", { type: "submit" }, "Use it"));
    notices.show("connection", `This server wants a token. ${error.message}`, { content: form });
  }

  document.addEventListener("visibilitychange", () => {
    if (!document.hidden && store.get().connection === "connected") look();
  });
  return {
    fail,
    /** The newest request was answered: what was wrong with the one before is past. */
    answered: () => notices.hide("request"),
    look,
    start() {
      look();
      return started;
    },
  };
}

function sameModel(one, other) {
  return one.model.version === other.model.version && one.model.name === other.model.name
    && one.model.runtime === other.model.runtime && one.manifestSha256 === other.manifestSha256;
}
