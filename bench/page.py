"""Measure how long the page takes from the last point of a stroke to its new scores.

`python -m bench.page` draws strokes in Debian's Chromium by real pointer events, at the pace of
a hand, and prints the times until the scores stand in the document and until they are painted.
"""

import argparse
import shutil
import time
from collections.abc import Sequence

import numpy as np
from playwright.sync_api import Page, sync_playwright

from bench.load.processes import running

PACE_SECONDS = 1 / 60  # a screen's, and that of most pointers
POINTS = 30
WAIT_MILLISECONDS = 30_000

WATCH = """async () => {
  const { app } = await import('/main.js');
  const pad = document.querySelector('.pad-canvas');
  const times = { last: 0, isDown: false, found: null };
  pad.addEventListener('pointerdown', () => {
    Object.assign(times, { isDown: true, found: null });
  }, true);
  pad.addEventListener('pointermove', (event) => { times.last = event.timeStamp; }, true);
  pad.addEventListener('pointerup', () => { times.isDown = false; look(); });
  function look() {
    const { trace, images, tracing } = app.store.get();
    if (times.isDown || times.found || tracing || trace?.images !== images) return;
    times.found = { written: performance.now() - times.last };
    requestAnimationFrame(() => {
      const { port1, port2 } = new MessageChannel();
      port1.onmessage = () => { times.found.painted = performance.now() - times.last; };
      port2.postMessage(null);
    });
  }
  app.store.subscribe(['trace', 'tracing'], look);
  window.times = times;
}"""
FOUND = """async (limit) => {
  const end = performance.now() + limit;
  while (performance.now() < end) {
    if (window.times.found?.painted) return window.times.found;
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  return null;
}"""


def main() -> None:
    """Print the quantiles of all strokes."""
    parser = argparse.ArgumentParser(prog="python -m bench.page", description=__doc__)
    parser.add_argument("--strokes", type=int, default=60, help="to draw (%(default)s)")
    parser.add_argument("--url", help="of a page that is served already; default: starts a server")
    options = parser.parse_args()
    if options.url:
        times = measure(options.url, options.strokes)
    else:
        arguments = ("--grpc-port", "0", "--metrics-port", "0", "--http-port", "0")
        with running("server", *arguments, "--log-format", "json") as served:
            times = measure(f"http://127.0.0.1:{served.http_port}", options.strokes)
    print(f"{options.strokes} strokes, from the last point, in milliseconds")
    for what in ("written", "painted"):
        p50, p95, most = np.quantile([each[what] for each in times], [0.5, 0.95, 1])
        print(f"scores {what}: p50 {p50:.1f}, p95 {p95:.1f}, max {most:.1f}")


def measure(url: str, count: int) -> list[dict[str, float]]:
    """Draw strokes on the page; return the times after each."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.goto(url)
        page.wait_for_selector(".stage [data-statistic]")
        page.evaluate(WATCH)
        times = []
        for stroke in range(count):
            page.get_by_role("button", name="Clear").click()
            _draw(page, _circle(stroke))
            found = page.evaluate(FOUND, WAIT_MILLISECONDS)
            if found is None:
                raise RuntimeError("a stroke got no scores")
            times.append(found)
        browser.close()
    return times


def _circle(seed: int) -> np.ndarray:
    """Return the points of a zero, [points, 2] as shares of the pad, each time another one."""
    random = np.random.default_rng(seed)
    angles = np.linspace(0, 2 * np.pi, POINTS)
    radii = random.uniform(0.15, 0.35, 2)
    return 0.5 + radii * np.stack([np.sin(angles), np.cos(angles)], axis=1)


def _draw(page: Page, points: Sequence[Sequence[float]] | np.ndarray) -> None:
    frame = page.locator(".pad-canvas").bounding_box()
    if frame is None:
        raise RuntimeError("the page has no pad")
    places = [
        (frame["x"] + x * frame["width"], frame["y"] + y * frame["height"]) for x, y in points
    ]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        time.sleep(PACE_SECONDS)
        page.mouse.move(*place)
    page.mouse.up()


if __name__ == "__main__":
    main()
