"""The server goes, comes back, changes its model, wants a token: it is told and recovered from."""

import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Route

from tests.browser.test_drawing import check_numbers
from tests.support.bundles import publish_random_bundle
from tests.support.pages import PLUS, SEVEN, TIMES, OpenPage
from tests.support.servers import RunningServer, start_server

Visit = Callable[..., OpenPage]
TOKEN, WRONG = "right-token-0123456789", "wrong-token-0123456789"
LABELS = tuple("0123456789")


@pytest.fixture
def http_port() -> str:
    """A port that is free, and stays so for a second server."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return str(port)


def test_a_lost_server_is_told_and_recovered_from(visit: Visit, http_port: str) -> None:
    with start_server("--http-port", http_port) as server:
        page = visit(server)
        page.open()
        page.draw(SEVEN)
        drawn = page.images()
        assert server.stop() == 0
    page.page.locator(".pad-canvas").focus()
    for key in ["ArrowLeft"] * 8 + ["Space"] + ["ArrowDown"] * 8:
        page.page.keyboard.press(key)
    page.page.get_by_text("The server does not answer. Trying again").wait_for()
    assert page.state["connection"] == "lost"
    with start_server("--http-port", http_port) as server:
        page.page.get_by_text("The server is back.").wait_for()
        page.settle()
        assert not np.array_equal(page.images(), drawn)  # what was drawn in between is not lost
        check_numbers(page, server)
    assert page.console  # Chromium reports a refused connection as an error
    page.console = [text for text in page.console if "ERR_" not in text]


def test_a_new_version_is_told_and_shown(visit: Visit, tmp_path: Path) -> None:
    publish_random_bundle(tmp_path, "mnist", (28, 28), LABELS, (16,))
    folder = ("--models-dir", str(tmp_path), "--device", "cpu", "--reload-interval", "0.1")
    with start_server("--http-port", "0", *folder) as server:
        page = visit(server)
        page.open()
        page.draw(SEVEN)
        publish_random_bundle(tmp_path, "mnist", (28, 28), LABELS, (32,))
        page.page.wait_for_timeout(1500)
        page.draw(PLUS)  # an answer of another version than the page has read
        page.page.get_by_text("The server now serves version 2 of mnist.").wait_for()
        page.settle()
        assert page.state["version"] == 2
        assert page.stages()[2]["shape"] == f"1 {TIMES} 32"
        assert "version 2" in str(page.page.locator("#served").text_content())
        check_numbers(page, server)


def test_a_token_is_asked_for_and_kept_for_the_session_alone(visit: Visit, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.touch(mode=0o600)
    tokens.write_text(TOKEN)
    with start_server("--http-port", "0", "--token-file", str(tokens)) as server:
        page = visit(server)
        page.page.goto(page.origin)
        field = page.page.get_by_label("Token")
        assert field.get_attribute("type") == "password"
        field.fill(WRONG)
        page.page.keyboard.press("Enter")
        page.page.wait_for_timeout(300)
        field.fill(TOKEN)
        page.page.get_by_role("button", name="Use it").click()
        page.page.wait_for_selector(".stage [data-statistic]")
        page.settle()
        assert page.page.locator(".token").count() == 0
        kept = page.page.evaluate("[sessionStorage.length, localStorage.length, document.cookie]")
        assert kept == [1, 0, ""]
        page.open()  # again, in the same session
        other = page.page.context.new_page()
        other.goto(page.origin)
        other.get_by_label("Token").wait_for()
    assert TOKEN not in page.page.url
    page.console = [text for text in page.console if "401" not in text]


@pytest.mark.parametrize(("status", "code"), [(429, "resource_exhausted"), (503, "unavailable")])
def test_a_busy_server_is_waited_for(
    page: OpenPage, web: RunningServer, status: int, code: str
) -> None:
    answers = iter([True])

    def refuse(route: Route) -> None:
        if next(answers, False):
            body = {"code": code, "message": "the queue is full"}
            route.fulfill(status=status, json=body, headers={"Retry-After": "1"})
        else:
            route.continue_()

    page.page.route("**/Trace", refuse)
    page.draw_without_waiting(SEVEN)
    page.page.locator("[data-kind=connection]", has_text="Trying again").wait_for()
    page.page.get_by_text("The server is back.").wait_for()
    page.settle()
    page.page.unroute("**/Trace")
    check_numbers(page, web)
    page.console = [text for text in page.console if str(status) not in text]


def test_a_refused_request_is_told_in_the_servers_words(page: OpenPage) -> None:
    page.page.evaluate(
        "async () => (await import('/main.js')).app.store.set("
        "{ interventions: [{ stage: '<b>none</b>', zero: true }] })"
    )
    notice = page.page.locator("[data-kind=request]")
    notice.wait_for()
    assert "<b>none</b>" in str(notice.text_content())
    assert notice.locator("b").count() == 0
    page.reset()
    page.page.locator("[data-kind=request]").wait_for(state="detached")
    page.console = [text for text in page.console if "400" not in text]
