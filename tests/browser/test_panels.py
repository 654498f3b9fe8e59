"""Every panel, open and in use: accessible in light and dark, on a desktop and on a phone."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import ViewportSize

from export.bundle import Bundle
from tests.browser.conftest import DESKTOP, PHONE
from tests.support.bundles import with_record
from tests.support.pages import SEVEN, OpenPage
from tests.support.panels import look, serving, wait
from tests.support.servers import RunningServer

PANELS = ("units", "interventions", "trust", "training", "quiz", "insight")


@pytest.fixture(scope="module")
def trained(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("recorded")
    with serving(with_record(bundle, folder)) as server:
        yield server


@pytest.fixture
def used(visit: Callable[..., OpenPage], trained: RunningServer) -> OpenPage:
    """A page with every panel in use."""
    page = visit(trained)
    page.open()
    page.draw(SEVEN)
    look(page, "units").get_by_text("Blue pixels speak for").wait_for()
    broken = look(page, "interventions")
    broken.get_by_role("button", name="Switch off the 10 strongest units").click()
    broken.locator("summary").click()
    trust = look(page, "trust")
    trust.get_by_role("button", name="Compare the runtimes").click()
    trust.get_by_text("All stay within their bounds").wait_for(timeout=120_000)
    look(page, "training").locator("#epoch").scroll_into_view_if_needed()
    page.page.get_by_text("It reads your drawing as").wait_for()
    quiz = look(page, "quiz")
    quiz.get_by_role("button", name="my digit").click()
    quiz.get_by_role("radio").nth(1).click()
    quiz.get_by_role("button", name="Check my answer").first.click()
    return page


def test_axe_finds_no_violation_in_open_panels(
    used: OpenPage, request: pytest.FixtureRequest
) -> None:
    folder = request.config.getoption("--screenshots")
    looks: list[tuple[Literal["light", "dark"], ViewportSize]] = [
        ("light", DESKTOP),
        ("dark", DESKTOP),
        ("dark", PHONE),
    ]
    for scheme, size in looks:
        used.page.emulate_media(color_scheme=scheme)
        used.page.set_viewport_size(size)
        for panel in PANELS:
            look(used, panel)
            wait(used)
            if folder:
                name = f"{panel}-{scheme}-{size['width']}.png"
                used.page.locator(f"#{panel}").screenshot(path=Path(folder) / name)
            assert used.page.evaluate("document.documentElement.scrollWidth") <= size["width"]
        results = Axe().run(used.page)
        assert results.violations_count == 0, results.generate_report()
