"""The quiz asks about the reader's own trace, and keeps it while it is answered."""

import numpy as np
import pytest
from playwright.sync_api import Locator, expect

from tests.support.pages import PLUS, SEVEN, OpenPage, float32s, trace_of
from tests.support.panels import look, state
from tests.support.servers import RunningServer

SHAPE = (28, 28)
TIMES = "\N{MULTIPLICATION SIGN}"
FORWARD = "It defines how the input moves through the layers"


def begin(page: OpenPage) -> Locator:
    section = look(page, "quiz")
    section.get_by_role("button", name="my digit").or_(
        section.get_by_role("button", name="New questions")
    ).click()
    return section.locator(".question")


def choices(question: Locator) -> list[str]:
    return question.locator(".answer span").all_text_contents()


def answer(page: OpenPage, question: Locator, text: str, *, by_keys: bool = False) -> str:
    """Answer a question, and return what is explained."""
    place = choices(question).index(text)
    if by_keys:
        question.get_by_role("radio").first.focus()
        page.page.keyboard.press("Space")
        for _ in range(place):
            page.page.keyboard.press("ArrowDown")
        page.page.keyboard.press("Enter")
    else:
        question.get_by_role("radio").nth(place).click()
        question.get_by_role("button", name="Check my answer").click()
    told = question.locator("p")
    expect(told).to_be_focused()
    return str(told.text_content())


def right_answer(
    page: OpenPage, server: RunningServer, weights: dict[str, np.ndarray], legend: str
) -> str:
    """Return the answer to a question, from what the server says of the selected image."""
    stages = trace_of(server.address, page.images(), SHAPE).stages
    if "forward method" in legend:
        return FORWARD
    if "shape" in legend:
        (stage,) = (stage for stage in stages if f"{stage.name}'s" in legend)
        count = (
            f"is {stage.shape[0]} digit " if stage.shape[0] == 1 else f"{stage.shape[0]} digits "
        )
        assert count in legend
        return f" {TIMES} ".join(map(str, stage.shape))
    relu, logits = (float32s(stages[index].values)[state(page, "selected")] for index in (3, 5))
    if "are 0 after relu" in legend:
        return str(int((relu == 0).sum()))
    label = int(np.argmax(logits))
    assert legend.endswith(f"adds most to the score of {label}?")
    return f"unit {np.argmax(weights['linear2.weight'][label].astype(float) * relu)}"


def test_the_right_answers_are_those_of_the_trace(
    page: OpenPage, web: RunningServer, weights: dict[str, np.ndarray]
) -> None:
    page.draw(SEVEN)
    asked = set()
    for by_keys in (True, False):  # the second time other questions are asked
        questions = begin(page)
        for i in range(3):
            legend = str(questions.nth(i).locator("legend").text_content())
            asked.add(legend)
            right = right_answer(page, web, weights, legend)
            told = answer(page, questions.nth(i), right, by_keys=by_keys)
            assert told.startswith("Right.")
        assert look(page, "quiz").locator(".verdict").text_content() == "Done: 3 of 3 right."
        page.page.get_by_role("button", name="Add another").click()
        page.draw(PLUS)
    assert len(asked) == 5


def test_a_wrong_answer_is_explained(
    page: OpenPage, web: RunningServer, weights: dict[str, np.ndarray]
) -> None:
    page.draw(SEVEN)
    questions = begin(page)
    legend = str(questions.nth(2).locator("legend").text_content())
    right = right_answer(page, web, weights, legend)
    wrong = next(text for text in choices(questions.nth(2)) if text != right)
    told = answer(page, questions.nth(2), wrong)
    assert told.startswith(f"No, it is: {right}.")
    if "are 0 after relu" in legend:
        stages = trace_of(web.address, page.images(), SHAPE).stages
        below = int((float32s(stages[2].values) <= 0).sum())
        assert f"{below} of the sums of linear1 are not above 0" in told
        assert f"The other {128 - below} pass" in told
    assert answer(page, questions.nth(1), "It updates the weights").startswith("No, it is: ")
    assert look(page, "quiz").locator(".verdict").text_content() == "0 of 2 right so far."
    assert questions.nth(1).get_by_role("radio").first.is_disabled()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ([{"units": [*range(64)], "zero": True}], "switched off {more} more; {same} pass"),
        ([{"add": 1}], "switched {below} of them on again, gave {above} of the others another"),
        ([{"scale": 0.5}], "gave {above} of the others another value; 0 pass as they are."),
        ([{"scale": 1}], "ReLU makes them 0. The other {above} pass as they are."),
    ],
)
def test_changes_are_counted_apart_from_relu(
    page: OpenPage, web: RunningServer, changes: list[dict[str, object]], told: str
) -> None:
    page.draw(SEVEN)
    page.page.evaluate(
        "async (all) => (await import('/main.js')).app.store.set({ interventions: all })",
        [{"stage": "relu", **change} for change in changes],
    )
    stages = trace_of(web.address, page.images(), SHAPE).stages  # without the changes
    sums = float32s(stages[2].values)[0]
    (above,) = np.nonzero(sums > 0)
    more = int((above < 64).sum())
    counts = {"below": 128 - above.size, "above": above.size, "more": more}
    page.page.wait_for_function(
        "async () => (await import('/main.js')).app.store.get().trace.interventions.length === 1"
    )
    questions = begin(page)
    while "are 0 after relu" not in str(questions.nth(2).locator("legend").text_content()):
        questions = begin(page)
    explained = answer(page, questions.nth(2), choices(questions.nth(2))[0])
    assert f"{counts['below']} of the sums of linear1 are not above 0" in explained
    assert told.format(**counts, same=above.size - more) in explained


def test_an_answer_must_be_chosen_first(page: OpenPage) -> None:
    question = begin(page).nth(1)
    question.get_by_role("button", name="Check my answer").click()
    assert question.locator("p").text_content() == "Choose an answer first."
    assert answer(page, question, FORWARD).startswith("Right.")


def test_drawing_on_does_not_change_the_questions(
    page: OpenPage, web: RunningServer, weights: dict[str, np.ndarray]
) -> None:
    page.draw(SEVEN)
    questions = begin(page)
    legends = [str(questions.nth(i).locator("legend").text_content()) for i in range(3)]
    right = [right_answer(page, web, weights, legend) for legend in legends]
    before = [choices(questions.nth(i)) for i in range(3)]
    page.page.get_by_role("button", name="Add another").click()
    page.draw(PLUS)
    assert [choices(questions.nth(i)) for i in range(3)] == before
    for i in range(3):
        assert answer(page, questions.nth(i), right[i]).startswith("Right.")


def test_the_key_insight_is_of_the_served_network(page: OpenPage) -> None:
    section = look(page, "insight")
    text = str(section.text_content())
    assert "forward is the heart of a model" in text
    assert f"28 {TIMES} 28 numbers" in text
    assert "101,770 numbers" in text
