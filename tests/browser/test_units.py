"""Look inside: the arithmetic that is shown adds up, and is the server's."""

from collections.abc import Callable

import numpy as np
import pytest
from playwright.sync_api import Locator

from export.bundle import Bundle
from forward.v1 import forward_pb2 as pb
from tests.support.pages import SEVEN, OpenPage, float32s, trace_of
from tests.support.panels import (
    adds_up,
    calls,
    column,
    image_tensor,
    look,
    pixels,
    rows,
    serving,
    signs,
    state,
    wait,
)
from tests.support.servers import RunningServer

MILLIONTH = 1.000001e-6
SHAPE = (28, 28)
RELU = 3  # index of the stage
PRODUCTS, EFFECTS = "784 products", "What it adds"
CONTRIBUTIONS, BY_PIXELS = "Unit by unit", "The same score"


def values(page: OpenPage, server: RunningServer) -> dict[str, np.ndarray]:
    """Return what the server computes of each stage for the first image."""
    stages = trace_of(server.address, page.images(), SHAPE).stages
    return {stage.name: float32s(stage.values)[0] for stage in stages}


def point_at_unit(page: OpenPage, section: Locator, unit: int) -> None:
    section.locator(".units button").nth(unit).hover()
    wait(page)
    assert section.locator("h3").first.text_content() == f"Hidden unit {unit}"


@pytest.mark.parametrize("is_on", [True, False])
def test_the_arithmetic_of_a_unit_adds_up(
    page: OpenPage, web: RunningServer, weights: dict[str, np.ndarray], is_on: bool
) -> None:
    page.draw(SEVEN)
    section = look(page, "units")
    served = values(page, web)
    unit = int(np.argmax(served["linear1"]) if is_on else np.argmin(served["linear1"]))
    point_at_unit(page, section, unit)

    table = rows(section, PRODUCTS)
    assert adds_up(table)
    products = weights["linear1.weight"][unit].astype(np.float64) * pixels(page)
    above, below = products[products > 0], products[products < 0]
    assert table[0][0].text == f"{len(above)} products above 0"
    assert table[1][0].text == f"{len(below)} products below 0"
    expected = [above.sum(), below.sum(), weights["linear1.bias"][unit]]
    np.testing.assert_allclose(column(section, PRODUCTS, 2)[:3], expected, atol=MILLIONTH)
    assert abs(table[3][2].number) < 1e-4  # what float32 rounded
    assert np.float32(table[4][2].number) == served["linear1"][unit]

    formula = section.locator(f"p:has(code:text('relu[{unit}]')) data")
    shown = [np.float32(formula.nth(i).get_attribute("value")) for i in range(2)]
    assert shown == [served["linear1"][unit], served["relu"][unit]]
    assert section.get_by_text("the unit is on" if is_on else "the unit is off").count() == 1
    effects = weights["linear2.weight"][:, unit].astype(np.float64) * served["relu"][unit]
    np.testing.assert_array_equal(column(section, EFFECTS, 2), effects)


def test_pictures_of_a_unit_show_its_weights(
    page: OpenPage, weights: dict[str, np.ndarray]
) -> None:
    page.draw(SEVEN)
    section = look(page, "units")
    point_at_unit(page, section, 40)
    row = weights["linear1.weight"][40].reshape(SHAPE)
    clear = abs(row) > 0.05 * abs(row).max()
    drawn = signs(section.locator(".equation canvas").nth(1))
    assert (drawn == np.sign(row))[clear].all()
    products = row * pixels(page).reshape(SHAPE)
    clear = abs(products) > 0.05 * abs(products).max()
    assert (signs(section.locator(".equation canvas").nth(2)) == np.sign(products))[clear].all()
    assert clear.any()


def test_a_pixel_is_read_out_by_mouse_and_keys(
    page: OpenPage, weights: dict[str, np.ndarray]
) -> None:
    page.draw(SEVEN)
    section = look(page, "units")
    section.locator(".units button").nth(7).click()  # stays when the mouse goes on
    wait(page)

    def check(row: int, col: int, words: str) -> None:
        at = 28 * row + col
        pixel, weight = pixels(page)[at], weights["linear1.weight"][7, at]
        factors = [f"{value:.3f}".replace("-", "\N{MINUS SIGN}") for value in (pixel, weight)]
        text = section.locator(".pixel").text_content()
        assert text
        times = " \N{MULTIPLICATION SIGN} ".join(factors)
        assert text.startswith(f"{words} {row}, column {col}: {times} = ")
        product = float(text.rpartition(" = ")[2].replace("\N{MINUS SIGN}", "-"))
        assert product == pytest.approx(float(pixel) * float(weight), abs=5.1e-4)

    products = abs(weights["linear1.weight"][7].astype(np.float64) * pixels(page))
    check(*divmod(int(products.argmax()), 28), "Largest: row")
    canvas = section.locator(".equation canvas").first
    box = canvas.bounding_box()
    assert box
    canvas.hover(position={"x": 13.5 / 28 * box["width"], "y": 6.5 / 28 * box["height"]})
    check(6, 13, "Row")
    page.page.mouse.move(5, 5)
    section.locator(".equation").focus()
    page.page.keyboard.press("ArrowRight")
    row, col = divmod(int(products.argmax()) + 1, 28)
    check(row, col, "Row")


def test_units_are_reached_by_keys(page: OpenPage) -> None:
    page.draw(SEVEN)
    section = look(page, "units")
    section.locator(".units button[tabindex='0']").focus()
    wait(page)
    first = state(page, "focus.unit")
    page.page.keyboard.press("ArrowRight" if first < 127 else "ArrowLeft")
    wait(page)
    unit = first + 1 if first < 127 else first - 1
    assert state(page, "focus") == {"stage": "relu", "unit": unit}
    assert section.locator("h3").first.text_content() == f"Hidden unit {unit}"
    page.page.keyboard.press("ArrowUp" if unit > 64 else "ArrowDown")
    wait(page)
    assert abs(state(page, "focus.unit") - unit) == 16


def test_a_tap_chooses_a_unit(visit: Callable[..., OpenPage], web: RunningServer) -> None:
    page = visit(web, has_touch=True, viewport={"width": 390, "height": 844})
    page.open()
    section = look(page, "units")
    section.locator(".units button").nth(33).tap()
    wait(page)
    assert section.locator("h3").first.text_content() == "Hidden unit 33"


def test_a_unit_of_the_pipeline_is_looked_into(page: OpenPage) -> None:
    page.draw(SEVEN)
    page.page.locator("[data-stage=linear1] canvas").focus()
    page.page.keyboard.press("Home")
    page.page.keyboard.press("ArrowRight")
    page.page.keyboard.press("Enter")
    section = look(page, "units")
    assert section.locator("h3").first.text_content() == "Hidden unit 1"


def test_contributions_of_a_score_add_up(
    page: OpenPage, web: RunningServer, weights: dict[str, np.ndarray]
) -> None:
    page.draw(SEVEN)
    section = look(page, "units")
    served = values(page, web)
    section.locator(".labels button").nth(3).click()
    page.page.mouse.move(5, 5)
    wait(page)
    terms = weights["linear2.weight"][3].astype(np.float64) * served["relu"]
    ranking = np.argsort(-abs(terms), kind="stable")

    table = rows(section, CONTRIBUTIONS)
    assert adds_up(table)
    expected = [*terms[ranking[:8]], terms[ranking[8:]].sum(), weights["linear2.bias"][3]]
    np.testing.assert_allclose([row[2].number for row in table[:10]], expected, atol=MILLIONTH)
    assert np.float32(table[-1][2].number) == served["output"][3]

    section.get_by_role("button", name="Show all 128 units").click()
    wait(page)
    table = rows(section, CONTRIBUTIONS)
    assert adds_up(table)
    shown = [row[2].number for row in table[:128]]
    np.testing.assert_allclose(shown, terms[ranking], atol=MILLIONTH)
    assert [row[0].text.split()[0] for row in table[:128]] == [f"relu[{u}]" for u in ranking]
    with calls(web) as stub:
        asked = pb.AttributeRequest(images=image_tensor(page), target_class=3, stage="relu")
        answer = stub.Attribute(asked)
    attributed = float32s(answer.stage_contributions)[0]
    np.testing.assert_allclose(shown, attributed[ranking], rtol=1e-6, atol=MILLIONTH)
    section.get_by_role("button", name="Show the strongest only").click()


def test_the_pixel_map_is_the_servers_attribution(page: OpenPage, web: RunningServer) -> None:
    page.draw(SEVEN)
    section = look(page, "units")
    section.locator(".labels button").nth(2).click()
    page.page.mouse.move(5, 5)
    section.get_by_text("Blue pixels speak for 2").wait_for()
    with calls(web) as stub:
        answer = stub.Attribute(pb.AttributeRequest(images=image_tensor(page), target_class=2))
    contributions, found = float32s(answer.contributions)[0], answer.attributions[0]
    table = rows(section, BY_PIXELS)
    assert adds_up(table)
    expected = [contributions.sum(dtype=np.float64), found.bias, found.residual]
    np.testing.assert_allclose([row[2].number for row in table[:3]], expected, atol=2e-6)
    assert table[3][2].number == pytest.approx(found.score, abs=1e-6)
    drawn = signs(section.locator(".map canvas"))
    clear = abs(contributions) > 0.05 * abs(contributions).max()
    assert (drawn == np.sign(contributions))[clear].all()
    bound = section.locator(".map p").text_content()
    assert bound
    said = bound.partition("at most ")[2].split()[0].rstrip(".").replace("\N{MINUS SIGN}", "-")
    assert float(said) == pytest.approx(found.residual_bound, rel=0.05)


def test_a_unit_is_switched_off_and_on_again(page: OpenPage, web: RunningServer) -> None:
    page.draw(SEVEN)
    section = look(page, "units")
    unit = int(np.argmax(values(page, web)["relu"]))
    section.locator(".units button").nth(unit).click()
    section.get_by_role("button", name=f"Switch unit {unit} off").click()
    wait(page)
    assert state(page, "interventions") == [{"stage": "relu", "units": [unit], "zero": True}]
    assert section.get_by_text("Your change makes it").count() == 1
    assert rows(section, PRODUCTS)[3][0].text == "Rounding of float32"
    assert not column(section, EFFECTS, 2).any()
    assert adds_up(rows(section, CONTRIBUTIONS))
    section.get_by_role("button", name=f"Switch unit {unit} on again").click()
    wait(page)
    assert state(page, "interventions") == []


def test_a_changed_sum_says_so_and_adds_up(page: OpenPage) -> None:
    page.draw(SEVEN)
    page.page.evaluate(
        "async () => (await import('/main.js')).app.store.set("
        "{ interventions: [{ stage: 'linear1', add: 2 }, { stage: 'linear2', scale: 3 }] })"
    )
    section = look(page, "units")
    point_at_unit(page, section, 3)
    table = rows(section, PRODUCTS)
    assert table[3][0].text == "Your change"
    assert table[3][2].number == pytest.approx(2, abs=1e-4)
    assert adds_up(table)
    contributions = rows(section, CONTRIBUTIONS)
    assert contributions[-2][0].text == "Your change"
    assert adds_up(contributions)


def test_another_network_is_looked_into(visit: Callable[..., OpenPage], tiny: Bundle) -> None:
    with serving(tiny) as server:
        page = visit(server)
        page.open()
        page.draw(SEVEN)
        section = look(page, "units")
        assert section.locator(".units button").count() == 4
        assert section.locator(".labels button").all_text_contents() == ["cat", "dog"]
        assert adds_up(rows(section, "15 products"))
        assert adds_up(rows(section, CONTRIBUTIONS))
        section.get_by_text("speak for").wait_for()
        assert adds_up(rows(section, BY_PIXELS))
        page.page.close()  # it would miss the server
