"""Fixtures: Chromium, a server with its page, and pages whose messages and requests are judged."""

import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, ViewportSize, sync_playwright

from tests.support.pages import OpenPage, watch
from tests.support.servers import RunningServer, start_server

DESKTOP = ViewportSize(width=1440, height=900)
PHONE = ViewportSize(width=390, height=844)
USUAL: dict[str, Any] = {"viewport": DESKTOP, "reduced_motion": "reduce"}


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """Debian's Chromium: Playwright's own would be a download of its own.

    It ends with each module: while Playwright runs, this thread has an event loop, and the tests of
    other modules that run one of their own would fail.
    """
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    with sync_playwright() as playwright:
        # Tests may run as root, for whom Chromium has no sandbox; the pages are the project's own.
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def web() -> Iterator[RunningServer]:
    """A server of the bundled model, with its page."""
    with start_server("--http-port", "0") as server:
        yield server


@pytest.fixture
def visit(chromium: Browser) -> Iterator[Callable[..., OpenPage]]:
    """What opens a page of a server in a browser of its own, judged at the end."""
    opened: list[OpenPage] = []

    def open_page(server: RunningServer, **options: Any) -> OpenPage:  # noqa: ANN401 (of new_context)
        context = chromium.new_context(**{**USUAL, **options})
        context.set_default_timeout(60_000)  # of a machine with much else to do
        opened.append(watch(context, f"http://{server.http_address}"))
        return opened[-1]

    yield open_page
    for page in opened:
        page.page.context.close()
        page.judge()


@pytest.fixture(scope="module")
def shared_page(chromium: Browser, web: RunningServer) -> Iterator[OpenPage]:
    context = chromium.new_context(**USUAL)
    context.set_default_timeout(60_000)
    page = watch(context, f"http://{web.http_address}")
    page.open()
    yield page
    context.close()


@pytest.fixture
def page(shared_page: OpenPage) -> Iterator[OpenPage]:
    """The page of that server as it is when it has been opened, judged at the end.

    It is opened once for all tests: that takes longer than most of them.
    """
    shared_page.reset()
    yield shared_page
    shared_page.judge()
