"""Break it: changes are made by the server, and what they did is written out."""

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import numpy as np
from google.protobuf.json_format import MessageToDict
from playwright.sync_api import Locator

from export.bundle import Bundle
from forward_client import Intervention
from tests.support.bundles import republish
from tests.support.pages import SEVEN, OpenPage, float32s, trace_of
from tests.support.panels import column, look, rows, serving, state, take_refusal, wait
from tests.support.servers import RunningServer

SHAPE = (28, 28)
SCORES = "Upper bar"


def check_scores(page: OpenPage, server: RunningServer, section: Locator) -> None:
    """Compare the scores before and after with the server's."""
    changes = [Intervention.parse(text).message() for text in written(section)]
    assert [MessageToDict(change) for change in changes] == state(page, "interventions")
    selected = state(page, "selected")
    before, after = (
        float32s(trace_of(server.address, page.images(), SHAPE, interventions=each).logits)
        for each in ([], changes)
    )
    shown = [column(section, SCORES, index) for index in (2, 3, 4)]
    np.testing.assert_array_equal(shown[0].astype(np.float32), before[selected])
    np.testing.assert_array_equal(shown[1].astype(np.float32), after[selected])
    expected = after[selected].astype(float) - before[selected]
    np.testing.assert_allclose(shown[2], expected, atol=1e-6)
    for was, now, change in (row[2:] for row in rows(section, SCORES)):
        assert abs(now.decimal - was.decimal - change.decimal) <= Decimal("0.01")  # of rounding
    verdict = section.locator(".verdict").text_content()
    assert verdict
    assert str(np.argmax(after[selected])) in verdict


def written(section: Locator) -> list[str]:
    """Return the changes as they are written out."""
    return section.locator(".changes code").all_text_contents()


def change_it(page: OpenPage, section: Locator, **fields: str) -> None:
    """Make a change of one's own, by keys alone."""
    details = section.locator("details")
    if details.get_attribute("open") is None:
        section.locator("summary").focus()
        page.page.keyboard.press("Enter")
    for label, text in {"Units": "", **fields}.items():
        field = section.locator(f".field:has(span:text-is('{label}')) > :last-child")
        field.focus()
        if field.evaluate("(field) => field.localName") == "select":
            field.select_option(label=text)
        else:
            field.fill("")
            page.page.keyboard.type(text)
    section.get_by_role("button", name="Change it").focus()
    page.page.keyboard.press("Enter")
    wait(page)


def test_the_strongest_units_are_switched_off(
    page: OpenPage, web: RunningServer, weights: dict[str, np.ndarray]
) -> None:
    page.draw(SEVEN)
    section = look(page, "interventions")
    check_scores(page, web, section)
    relu = float32s(trace_of(web.address, page.images(), SHAPE).stages[3].values)[0]
    terms = weights["linear2.weight"][7].astype(float) * relu
    strongest = sorted(np.argsort(-terms, kind="stable")[:10].tolist())
    section.get_by_role("button", name="Switch off the 10 strongest units").click()
    wait(page)
    assert written(section) == [str(Intervention.zero("relu", strongest))]
    check_scores(page, web, section)


def test_every_button_makes_its_change(page: OpenPage, web: RunningServer) -> None:
    page.draw(SEVEN)
    section = look(page, "interventions")
    for name in ("10 random units", "Halve all", "Erase the left half"):
        section.get_by_role("button", name=name).click()
        wait(page)
        check_scores(page, web, section)
    chance, half, left = map(Intervention.parse, written(section))
    assert chance.units
    assert len(chance.units) == 10
    assert half == Intervention.scale("relu", by=0.5)
    columns = np.arange(784) % 28
    assert left == Intervention.zero("input", np.flatnonzero(columns < 14))


CHANGES = {
    "relu=0": {"Stage": "relu", "Change": "switch off"},
    "linear1[3,17,40..49]*=0.5": {
        "Stage": "linear1", "Units": "3, 17, 40..49", "Change": "multiply by", "Factor": "0.5",
    },
    "relu[5]=2.25": {"Stage": "relu", "Units": "5", "Change": "set to", "Value": "2.25"},
    "linear2[1,2]-=3": {"Stage": "linear2", "Units": "1,2", "Change": "add", "Number": "-3"},
    "relu=0.5..6": {
        "Stage": "relu", "Change": "keep within", "Lowest": "0.5", "Highest": "6",
    },
    "linear1=..1": {
        "Stage": "linear1", "Change": "keep within", "Lowest": "", "Highest": "1",
    },
}  # fmt: skip


def test_changes_are_made_by_keys(page: OpenPage, web: RunningServer) -> None:
    page.draw(SEVEN)
    section = look(page, "interventions")
    for count, fields in enumerate(CHANGES.values(), 1):
        change_it(page, section, **fields)
        assert written(section) == list(CHANGES)[:count]
        check_scores(page, web, section)


def test_what_is_no_change_is_told(page: OpenPage) -> None:
    section = look(page, "interventions")
    relu = {"Stage": "relu"}
    for words, fields in [
        ("units 0 to 127; there is no 128", {"Units": "128", "Change": "switch off"}),
        ("This is none: seven", {"Units": "1, seven"}),
        ("This is none: 9..3", {"Units": "9..3"}),
        ("Write a number", {"Change": "multiply by"}),
        ("Write a number", {"Change": "add", "Number": "1e39"}),
        ("must not be above", {"Change": "keep within", "Lowest": "2", "Highest": "1"}),
    ]:
        change_it(page, section, **{**relu, **fields})
        assert words in str(section.get_by_role("alert").text_content())
    assert state(page, "interventions") == []


def test_changes_are_undone_one_by_one_and_together(page: OpenPage, web: RunningServer) -> None:
    page.draw(SEVEN)
    section = look(page, "interventions")
    for name in ("Halve all", "Erase the left half", "Halve all"):
        section.get_by_role("button", name=name).click()
    wait(page)
    section.get_by_role("button", name="Undo: all units of relu multiplied by 0.5").first.focus()
    page.page.keyboard.press("Enter")
    wait(page)
    assert [Intervention.parse(text).stage for text in written(section)] == ["input", "relu"]
    check_scores(page, web, section)
    section.get_by_role("button", name="Undo: 392").click()
    wait(page)
    assert len(written(section)) == 1  # one change, too, has the button
    section.get_by_role("button", name="Undo all changes").click()
    wait(page)
    assert written(section) == []
    check_scores(page, web, section)


def test_units_are_taken_from_another_digit(page: OpenPage, web: RunningServer) -> None:
    page.draw(SEVEN)
    page.page.get_by_role("button", name="Add another").click()
    page.draw([[(140, 50), (140, 240)]])
    section = look(page, "interventions")
    section.get_by_role("button", name="hidden units of the next digit").click()
    wait(page)
    assert written(section) == ["relu@1=@0"]
    check_scores(page, web, section)
    assert section.get_by_text("has become 7").count() == 1
    change_it(page, section, Stage="linear1", Change="take from", Digit="digit 1")
    assert written(section)[1:] == ["linear1@1=@0"]
    check_scores(page, web, section)


def test_a_digit_that_goes_takes_its_changes_with_it(page: OpenPage) -> None:
    page.draw(SEVEN)
    page.page.get_by_role("button", name="Add another").click()
    page.draw([[(140, 50), (140, 240)]])
    section = look(page, "interventions")
    section.get_by_role("button", name="hidden units of the next digit").click()
    section.get_by_role("button", name="Halve all").click()
    wait(page)
    page.page.evaluate("async () => (await import('/main.js')).app.sheets.remove(1)")
    wait(page)
    assert written(section) == ["relu*=0.5"]


def test_a_server_that_makes_no_changes_says_so(
    visit: Callable[..., OpenPage], tiny: Bundle, tmp_path: Path
) -> None:
    files = tuple(file for file in tiny.manifest.files if file.name != "interventions.onnx")
    older = Bundle(tiny.path, tiny.manifest.model_copy(update={"files": files}))
    with serving(republish(older, tmp_path / "older", {})) as server:
        page = visit(server)
        page.open()
        section = look(page, "interventions")
        section.get_by_text("cannot change its network").wait_for()
        assert section.get_by_role("button").count() == 0
        take_refusal(page, 400)
        page.page.close()  # it would miss the server


def test_the_prediction_tells_of_changes_and_undoes_them(page: OpenPage) -> None:
    prediction = page.page.locator(".prediction")
    assert not prediction.get_by_role("button", name="Undo all").is_visible()
    section = look(page, "interventions")
    section.get_by_role("button", name="Switch off the 10 strongest units").click()
    prediction.get_by_text("with your change", exact=True).wait_for()
    change_it(page, section, Units="3")
    prediction.get_by_text("with your 2 changes", exact=True).wait_for()
    prediction.get_by_role("button", name="Undo all").click()
    wait(page)
    assert state(page, "interventions") == []
    assert not prediction.locator(".prediction-changes").is_visible()
