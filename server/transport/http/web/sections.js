// The sections of the page: going to one, and telling which is read.

/**
 * @param {object} store gets `panel`
 * @returns {(id: string) => void} what goes to a section
 */
export function followSections(store) {
  const links = [...document.querySelectorAll(".bar nav a")];
  const sections = links.map((link) => document.querySelector(link.hash));
  const calm = matchMedia("(prefers-reduced-motion: reduce)");

  let held = null;
  // Sections above fill in later and push it down: stay at it until the person moves.
  new ResizeObserver(() => held?.scrollIntoView({ behavior: "instant", block: "start" })).observe(document.querySelector(".layout"));
  for (const event of ["wheel", "pointerdown", "touchmove", "keydown"]) {
    addEventListener(event, () => {
      held = null;
    }, { capture: true, passive: true });
  }

  function show(id) {
    const section = document.getElementById(id);
    held = section;
    section.scrollIntoView({ behavior: calm.matches ? "auto" : "smooth", block: "start" });
    const heading = section.querySelector("h2");
    heading.tabIndex = -1;
    heading.focus({ preventScroll: true });
  }

  for (const link of [...links, document.querySelector(".skip")]) {
    link.addEventListener("click", (event) => {
      event.preventDefault(); // the fragment stays free for a link
      show(link.hash.slice(1));
    });
  }
  const watcher = new IntersectionObserver(() => {
    const line = innerHeight / 3;
    const read = sections.findLast((section) => section.getBoundingClientRect().top <= line) ?? sections[0];
    store.set({ panel: read.id });
  }, { rootMargin: "-33% 0px -66% 0px" });
  for (const section of sections) watcher.observe(section);
  store.subscribe(["panel"], ({ panel }) => {
    for (const link of links) {
      if (link.hash === `#${panel}`) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    }
  });
  return show;
}
