// What the panels have in common: for which model and when they render, and cards to choose in.

import { element } from "./elements.js";
import { shownOf } from "./traces.js";

/** Call build(model, subscribe) for each model that is served while the page is open; `subscribe` is the store's until the next one. */
export function onModel(store, build) {
  let ends = [];
  store.subscribe(["model"], ({ model }) => {
    if (!model) return;
    for (const end of ends) end();
    ends = [];
    build(model, (keys, listener) => ends.push(store.subscribe(keys, listener)));
  });
}

/** @returns {() => void} asks for `render`: once, in the next frame, and only while the node is near the screen */
export function lazily(node, render) {
  let visible = false;
  let stale = false;
  let frame = 0;
  function run() {
    frame = 0;
    if (!visible || !stale) return;
    stale = false;
    render();
  }
  function ask() {
    stale = true;
    if (visible && !frame) frame = requestAnimationFrame(run);
  }
  new IntersectionObserver((entries) => {
    visible = entries.at(-1).isIntersecting;
    if (stale) ask();
  }, { rootMargin: "100px" }).observe(node);
  return ask;
}

/** Call render(what shownOf returns) after each trace, lazily. @returns {() => void} asks for it */
export function onTrace({ store, subscribe }, node, render) {
  const ask = lazily(node, () => {
    const shown = shownOf(store.get());
    if (shown) render(shown);
  });
  subscribe(["trace", "selected", "parameters"], ask);
  return ask;
}

/**
 * A card with a button for each unit. The mouse shows the one that it points at, a click, a tap or
 * the arrow keys choose one, and so does the pipeline.
 * @param {object} panel
 * @param {object} card `texts` of the buttons; `stages` that have these units; `parts`, the nodes below; `render(shown, unit)`
 *   returns the unit that it shows where none (null) is chosen
 * @returns {{node: HTMLElement, title: HTMLElement, buttons: HTMLElement[], ask: () => void}}
 */
export function unitCard(panel, { kind, label, texts, hint, stages, parts, render }) {
  let chosen = null;
  let pointed = null;
  const choose = (unit) => panel.store.set({ focus: { stage: stages.at(-1), unit } });
  function point(unit) {
    pointed = unit;
    ask();
  }
  const buttons = texts.map((text, unit) => element("button", {
    type: "button",
    onclick: () => choose(unit),
    onfocus: () => choose(unit),
    onpointerenter: ({ pointerType }) => pointerType === "mouse" && point(unit),
  }, text));
  function onkeydown(event) {
    const columns = buttons.filter(({ offsetTop }) => offsetTop === buttons[0].offsetTop).length;
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[event.key];
    if (!step) return;
    event.preventDefault();
    buttons[buttons.indexOf(document.activeElement) + step]?.focus();
  }
  const title = element("h3", {}, "The weights of the network are not here yet");
  const group = element(`div.choice.${kind}`, { role: "group", aria: { label }, onkeydown, onpointerleave: () => point(null) }, ...buttons);
  const told = element("div.told", { hidden: true }, ...parts);
  const node = element("article.card", {}, title, element("p.hint", {}, hint), group, told);
  const ask = onTrace(panel, node, (shown) => {
    told.hidden = false;
    const unit = render(shown, pointed ?? chosen);
    buttons.forEach((button, index) => {
      button.ariaPressed = String(index === unit);
      button.tabIndex = index === unit ? 0 : -1;
    });
  });
  panel.subscribe(["focus"], ({ focus }) => {
    if (focus && !stages.includes(focus.stage)) return;
    chosen = focus?.unit ?? null;
    ask();
  });
  return { node, title, buttons, ask };
}
