"""What holds for the page as a whole: accessible, small, still, and pleasant to look at."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import ViewportSize

from tests.browser.conftest import DESKTOP, PHONE
from tests.support.bundles import REPOSITORY
from tests.support.pages import PLUS, SEVEN, OpenPage
from tests.support.servers import RunningServer, wait_until

WEB = REPOSITORY / "server" / "transport" / "http" / "web"
MOST_BYTES = 150_000  # as they are sent, compressed, headers included
LOOKS: dict[str, tuple[Literal["light", "dark"], ViewportSize]] = {
    "light": ("light", DESKTOP),
    "dark": ("dark", DESKTOP),
    "phone": ("light", PHONE),
}


@pytest.mark.parametrize("look", LOOKS)
def test_axe_finds_no_violation(page: OpenPage, look: str, request: pytest.FixtureRequest) -> None:
    scheme, size = LOOKS[look]
    page.page.emulate_media(color_scheme=scheme)
    page.page.set_viewport_size(size)
    page.draw(SEVEN)
    results = Axe().run(page.page)
    folder = request.config.getoption("--screenshots")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.page.screenshot(path=Path(folder) / f"{look}.png")
        page.page.screenshot(path=Path(folder) / f"{look}-whole.png", full_page=True)
    page.page.emulate_media(color_scheme="light")
    page.page.set_viewport_size(DESKTOP)
    assert results.violations_count == 0, results.generate_report()


def test_nothing_moves_while_one_draws(page: OpenPage) -> None:
    page.page.evaluate("""() => {
      window.shifts = 0;
      new PerformanceObserver((list) => {
        for (const entry of list.getEntries()) window.shifts += entry.value;
      }).observe({ type: 'layout-shift' });
    }""")
    page.draw(SEVEN)
    page.draw(PLUS)
    page.page.get_by_role("button", name="Clear").click()
    page.settle()
    page.page.wait_for_timeout(300)
    assert page.page.evaluate("window.shifts") < 0.01


def test_no_phone_has_to_scroll_sideways(
    visit: Callable[..., OpenPage], web: RunningServer
) -> None:
    page = visit(web, viewport={"width": 320, "height": 640}, has_touch=True)
    page.open()
    for name in ("units", "interventions", "trust", "training", "quiz"):
        page.page.locator(f"#{name}").scroll_into_view_if_needed()  # which fills it
        page.page.locator(f"#{name} :is(table, button)").first.wait_for()
        page.settle()
    assert page.page.evaluate("document.documentElement.scrollWidth") == 320


def test_the_whole_page_is_loaded_with_under_150_kb(
    visit: Callable[..., OpenPage], web: RunningServer
) -> None:
    page = visit(web)
    session = page.page.context.new_cdp_session(page.page)
    session.send("Network.enable")
    bodies: dict[str, str] = {}
    sizes: dict[str, int] = {}

    def see_response(event: dict[str, Any]) -> None:
        path = urlsplit(event["response"]["url"]).path
        if not path.startswith("/forward."):
            bodies[event["requestId"]] = path.strip("/") or "index.html"

    session.on("Network.responseReceived", see_response)
    session.on(
        "Network.loadingFinished",
        lambda event: sizes.update({event["requestId"]: int(event["encodedDataLength"])}),
    )
    page.open()
    files = {str(path.relative_to(WEB)) for path in WEB.rglob("*") if path.is_file()}
    loaded = {name: sizes[request] for request, name in bodies.items() if name in files}
    assert loaded.keys() == files  # none is there for nothing
    assert sum(loaded.values()) < MOST_BYTES


_WATCH_LIGHT = """() => {
  window.lit = [];
  for (const stage of document.querySelectorAll('.stage')) {
    new MutationObserver(() => {
      if (stage.classList.contains('is-lit')) window.lit.push(stage.dataset.stage);
    }).observe(stage, { attributeFilter: ['class'] });
  }
}"""


def test_light_passes_through_the_stages_unless_motion_is_unwanted(page: OpenPage) -> None:
    page.page.evaluate(_WATCH_LIGHT)
    page.draw(SEVEN)
    page.page.wait_for_timeout(600)
    assert page.page.evaluate("window.lit") == []
    page.page.emulate_media(reduced_motion="no-preference")
    page.draw(PLUS)
    names = [stage["name"] for stage in page.stages()]
    wait_until(lambda: bool(page.page.evaluate("window.lit")[-len(names) :] == names))
    page.page.emulate_media(reduced_motion="reduce")


_STICKS_OUT = """() => [...document.querySelectorAll('.stage > *, canvas')].filter((part) => {
  if (!part.closest('.stage')) return false;
  const [inner, card] = [part, part.closest('.stage')].map((each) => each.getBoundingClientRect());
  return inner.left < card.left || inner.right > card.right
    || part.scrollWidth > part.clientWidth + 1;
}).map((part) => `${part.closest('.stage').dataset.stage}: ${part.className}`)"""


@pytest.mark.parametrize("width", [390, 1280])
def test_changed_stages_stay_within_their_cards(page: OpenPage, width: int) -> None:
    page.page.set_viewport_size({"width": width, "height": 800})
    page.page.evaluate(
        "async () => { const { app } = await import('/main.js'); app.store.set({ interventions:"
        " app.store.get().model.stages.slice(0, -1).map(({ name }) => ({ stage: name, scale: 2 }))"
        " }); }"
    )
    page.settle()
    assert page.page.locator(".badge:visible").count() > 1
    sticks_out = page.page.evaluate(_STICKS_OUT)
    page.page.set_viewport_size(DESKTOP)
    assert sticks_out == []


def test_a_phone_shows_pad_and_scores_at_once(
    visit: Callable[..., OpenPage], web: RunningServer
) -> None:
    page = visit(web, viewport=PHONE, has_touch=True)
    page.open()
    pad, scores = (page.page.locator(each).bounding_box() for each in (".pad", ".columns"))
    assert pad
    assert scores
    assert pad["y"] > 0
    assert scores["y"] + scores["height"] <= PHONE["height"]
