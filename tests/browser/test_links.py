"""A link holds the drawings and the view; one that is damaged is ignored and told."""

import base64
import json
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from playwright.sync_api import ViewportSize

from tests.browser.conftest import DESKTOP, PHONE
from tests.support.pages import PLUS, SEVEN, OpenPage
from tests.support.servers import RunningServer, wait_until

CHANGES = [{"stage": "relu", "units": [3, 5], "zero": True}]


def encoded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def fragment(
    pixels: bytes, changes: object = (), selected: str = "0", panel: str = "pipeline"
) -> str:
    compressor = zlib.compressobj(wbits=-15)
    packed = compressor.compress(pixels) + compressor.flush()
    parts = ["1", selected, panel, encoded(json.dumps(changes).encode()), encoded(packed)]
    return "#" + ".".join(parts)


def test_a_link_restores_drawings_and_changes(page: OpenPage) -> None:
    page.draw(SEVEN)
    page.page.get_by_role("button", name="Add another").click()
    page.draw(PLUS)
    page.page.evaluate(
        "async (interventions) => (await import('/main.js')).app.store.set({ interventions })",
        CHANGES,
    )
    page.settle()
    drawn = page.images()
    page.page.get_by_role("button", name="Copy link").click()
    page.page.get_by_text("The link is").wait_for()
    link = page.page.url.partition("#")[2]
    _, selected, _, changes, pixels = link.split(".")
    assert (selected, json.loads(decoded(changes))) == ("1", CHANGES)
    assert zlib.decompress(decoded(pixels), -15) == drawn.tobytes()

    page.reset()
    page.page.evaluate("location.hash = ''")
    page.page.evaluate("(link) => { location.hash = link; }", link)
    page.page.wait_for_selector(".thumbnails button:nth-child(2)")
    page.settle()
    assert np.array_equal(page.images(), drawn)
    assert page.state["interventions"] == CHANGES
    assert page.state["selected"] == 1


def test_a_link_opens_at_its_section(visit: Callable[..., OpenPage], web: RunningServer) -> None:
    page = visit(web)
    pixels = bytes(range(0, 196, 1)) * 4
    page.open(fragment(pixels, panel="trust"))
    assert page.images().tobytes() == pixels
    assert page.page.evaluate("document.activeElement.id") == "trust-heading"


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_a_link_stays_at_its_section_until_one_scrolls(
    visit: Callable[..., OpenPage], web: RunningServer, size: ViewportSize
) -> None:
    page = visit(web, viewport=size)
    page.open(fragment(bytes(range(196)) * 4, panel="training"))
    page.page.wait_for_load_state("networkidle")
    page.page.wait_for_selector("#training svg")
    top = "document.querySelector('#training').getBoundingClientRect().top"
    bar = "document.querySelector('.bar').getBoundingClientRect().bottom"
    assert 0 <= page.page.evaluate(f"{top} - {bar}") <= 25
    grow = "document.querySelector('#pipeline').style.paddingTop = '300px'"
    before = page.page.evaluate(top)
    page.page.evaluate(grow)
    page.page.wait_for_timeout(100)
    assert page.page.evaluate(top) == pytest.approx(before, abs=1)
    page.page.mouse.move(200, 500)
    page.page.mouse.wheel(0, -4000)
    wait_until(lambda: bool(page.page.evaluate(top) > before + 1000))


GOOD = bytes(784)
DAMAGED = {
    "no parts": "#1.",
    "no base64": "#1.0.pipeline.W10.!!!",
    "no deflate": "#1.0.pipeline.W10." + encoded(b"\xff" * 40),
    "half an image": fragment(bytes(392)),
    "no image": fragment(b""),
    "too many images": fragment(bytes(65 * 784)),
    "a bomb": fragment(bytes(1 << 24)),
    "no such image": fragment(GOOD, selected="1"),
    "a negative image": fragment(GOOD, selected="-1"),
    "no list of changes": fragment(GOOD, {"stage": "relu", "zero": True}),
    "an unknown stage": fragment(GOOD, [{"stage": "relu9", "zero": True}]),
    "the last stage": fragment(GOOD, [{"stage": "output", "zero": True}]),
    "an unknown change": fragment(GOOD, [{"stage": "relu", "explode": True}]),
    "null": fragment(GOOD, [None]),
    "no JSON": "#1.0.pipeline." + encoded(b"{") + "." + fragment(GOOD).rpartition(".")[2],
    "more parts": fragment(GOOD) + ".x",
}


@pytest.mark.parametrize("link", DAMAGED.values(), ids=DAMAGED.keys())
def test_a_damaged_link_is_told_and_changes_nothing(page: OpenPage, link: str) -> None:
    before = page.images()
    page.page.evaluate("(link) => { location.hash = link; }", link)
    notice = page.page.locator("[data-kind=link]", has_text="damaged")
    notice.wait_for()
    assert np.array_equal(page.images(), before)
    notice.get_by_role("button", name="Dismiss").click()
    assert notice.count() == 0


def test_what_is_no_link_is_left_alone(page: OpenPage) -> None:
    before = page.images()
    page.page.evaluate("location.hash = '#<img src=x onerror=alert(1)>'")
    page.settle()
    assert page.page.locator(".notice").count() == 0
    assert np.array_equal(page.images(), before)
