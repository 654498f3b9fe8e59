"""Drawings are collected into a batch, and every shape shows its N."""

import numpy as np

from tests.browser.test_drawing import check_numbers
from tests.support.pages import PLUS, SEVEN, TIMES, OpenPage
from tests.support.servers import RunningServer


def add(page: OpenPage) -> None:
    page.page.get_by_role("button", name="Add another").click()
    page.settle()


def leading(page: OpenPage) -> set[str]:
    return {stage["shape"].split(f" {TIMES} ")[0] for stage in page.stages()}


def test_every_shape_shows_the_number_of_drawings(page: OpenPage, web: RunningServer) -> None:
    page.draw(SEVEN)
    seven = page.images()[0]
    add(page)
    page.draw(PLUS)
    add(page)
    assert leading(page) == {"3"}
    assert page.state["selected"] == 2
    check_numbers(page, web)
    page.page.get_by_role("button", name="Drawing 1", exact=True).click()
    page.settle()
    assert np.array_equal(page.images()[0], seven)
    assert page.page.locator(".prediction-label").text_content() == "7"
    assert page.page.locator(".thumbnails [aria-pressed=true]").count() == 1
    check_numbers(page, web)
    page.page.get_by_role("button", name="Remove").click()
    page.settle()
    assert leading(page) == {"2"}
    assert not np.array_equal(page.images()[0], seven)
    check_numbers(page, web)


def test_a_batch_holds_64_drawings_at_most(page: OpenPage, web: RunningServer) -> None:
    page.page.evaluate(
        "async () => { const { app } = await import('/main.js');"
        " for (let i = 0; i < 99; i += 1) app.sheets.add(); }"
    )
    page.draw(SEVEN)
    assert page.images().shape == (64, 784)
    assert page.page.get_by_role("button", name="Add another").is_disabled()
    assert leading(page) == {"64"}
    check_numbers(page, web)
