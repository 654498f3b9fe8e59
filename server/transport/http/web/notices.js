// Short messages to the person, one of each kind at a time.

import { element } from "./elements.js";

/**
 * @param {HTMLElement} place
 * @returns {{show: (kind: string, text: string, options?: object) => void, hide: (kind: string) => void}}
 *   Options: `content`, an element below the text; `dismissable`; `seconds` after which it goes
 */
export function createNotices(place) {
  place.setAttribute("role", "status");
  const shown = new Map();

  function hide(kind) {
    const notice = shown.get(kind);
    clearTimeout(notice?.timer);
    notice?.box.remove();
    shown.delete(kind);
  }

  function show(kind, text, { content = null, dismissable = false, seconds = 0 } = {}) {
    const before = shown.get(kind);
    if (before && before.text === text && !seconds) return;
    hide(kind);
    const close = dismissable
      ? element("button.quiet", { type: "button", onclick: () => hide(kind) }, "Dismiss") : null;
    const box = element("div.notice", { data: { kind } }, element("p", {}, text), content, close);
    place.append(box);
    shown.set(kind, { box, text, timer: seconds ? setTimeout(() => hide(kind), 1000 * seconds) : 0 });
  }
  return { show, hide };
}
