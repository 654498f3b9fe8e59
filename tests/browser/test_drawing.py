"""A digit is drawn, and every number that the page shows is the server's."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from export.bundle import Bundle
from forward.v1 import forward_pb2 as pb
from tests.support.pages import PLUS, SEVEN, TIMES, OpenPage, float32s, shown, trace_of
from tests.support.servers import RunningServer, start_server

SHAPE = (28, 28)
STATISTICS = {
    "min": "min",
    "max": "max",
    "mean": "mean",
    "standardDeviation": "standard_deviation",
    "l2Norm": "l2_norm",
    "zeroShare": "zero_share",
}
LINES = [
    "def forward(self, x):",
    "x = x.flatten(1)",
    "x = self.linear1(x)",
    "x = torch.relu(x)",
    "x = self.linear2(x)",
    "return x",
]


def check_numbers(page: OpenPage, server: RunningServer, shape: tuple[int, int] = SHAPE) -> None:
    """Compare every number of the pipeline and the prediction with the server's trace."""
    trace = trace_of(server.address, page.images(), shape)
    selected = page.state["selected"]
    stages = page.stages()
    assert [stage["name"] for stage in stages] == [stage.name for stage in trace.stages]
    for drawn, traced in zip(stages, trace.stages, strict=True):
        assert drawn["shape"] == f" {TIMES} ".join(map(str, traced.shape))
        for key, name in STATISTICS.items():
            check_number(drawn["statistics"][key], getattr(traced.statistics, name))
        if drawn["bars"]:
            row = float32s(traced.values)[selected]
            for bar, value in zip(drawn["bars"], row, strict=True):
                check_number(bar, value)
    check_prediction(page, float32s(trace.logits)[selected])


def check_number(number: tuple[str, str], expected: float) -> None:
    """Check that a number is there to the bit, and what is read is it, rounded."""
    value, text = number
    assert np.float32(value) == np.float32(expected)
    step = 10.0 ** -len(text.partition(".")[2].partition("e")[0].removesuffix(" %"))
    if text.endswith("%"):
        step /= 100
    if "e" in text:
        step *= 10 ** np.floor(np.log10(abs(expected)))
    assert shown(text) == pytest.approx(float(expected), abs=float(0.5001 * step))


def check_prediction(page: OpenPage, logits: np.ndarray) -> None:
    best, following = np.argsort(-logits, kind="stable")[:2]
    labels = page.page.locator(".tower span").all_text_contents()
    assert page.page.locator(".prediction-label").text_content() == labels[best]
    if page.page.locator(".prediction-label.is-empty").count():
        return  # nothing is drawn: words in the place of the numbers
    assert page.page.locator(".prediction-words b").text_content() == labels[following]
    numbers = page.page.locator(".prediction-words data").evaluate_all(
        "(all) => all.map((number) => [number.value, number.textContent])"
    )
    for number, value in zip(numbers, logits[[best, following]], strict=True):
        check_number(number, value)


def test_every_number_shown_is_the_servers(page: OpenPage, web: RunningServer) -> None:
    page.draw(SEVEN)
    assert page.images().any()
    check_numbers(page, web)
    assert page.page.locator(".prediction-label").text_content() == "7"
    assert [stage["line"] for stage in page.stages()] == LINES
    page.draw(PLUS)
    assert page.state["strokes"] == 3
    check_numbers(page, web)


def test_a_network_of_any_shape_is_shown(visit: Callable[..., OpenPage], tiny: Bundle) -> None:
    folder = ("--models-dir", str(tiny.path.parent.parent), "--model", "tiny", "--http-port", "0")
    with start_server(*folder, "--device", "cpu") as server:
        page = visit(server)
        page.open()
        page.draw(SEVEN)
        assert page.images().shape == (1, 15)
        check_numbers(page, server, (3, 5))
        assert page.page.locator(".tower span").all_text_contents() == ["cat", "dog"]


@pytest.mark.parametrize("pointer", ["touch", "pen"])
def test_touch_and_pen_draw_as_the_mouse_does(
    visit: Callable[..., OpenPage], web: RunningServer, pointer: str
) -> None:
    page = visit(web, has_touch=True)
    page.open()
    page.draw(SEVEN, "mouse")
    drawn = page.images()
    page.reset()
    page.draw(SEVEN, pointer)
    assert np.array_equal(page.images(), drawn)
    check_numbers(page, web)


def test_keys_draw(page: OpenPage, web: RunningServer) -> None:
    page.page.locator(".pad-canvas").focus()
    for key in ["ArrowUp"] * 8 + ["Space"] + ["ArrowDown"] * 16 + ["Space"] + ["ArrowLeft"] * 3:
        page.page.keyboard.press(key)
    page.settle()
    assert page.state["strokes"] == 1
    assert page.page.locator(".prediction-label").text_content() == "1"
    check_numbers(page, web)


def test_the_first_stroke_replaces_the_example(page: OpenPage) -> None:
    example = page.images()
    page.draw(SEVEN)
    assert page.state["strokes"] == 1
    page.page.get_by_role("button", name="Undo").click()
    page.settle()
    assert np.array_equal(page.images(), example)


def test_undo_takes_back_strokes_and_clear(page: OpenPage, web: RunningServer) -> None:
    page.draw(PLUS)
    both = page.images()
    page.page.get_by_role("button", name="Clear").click()
    page.settle()
    assert not page.images().any()
    check_numbers(page, web)  # of biases alone
    undo = page.page.get_by_role("button", name="Undo")
    undo.click()
    page.settle()
    assert np.array_equal(page.images(), both)
    undo.click()
    page.settle()
    assert page.state["strokes"] == 1


def test_samples_are_mnists_test_images_byte_for_byte(
    page: OpenPage, web: RunningServer, test_pixels: np.ndarray
) -> None:
    samples = page.page.locator(".tray button")
    assert samples.count() == 12
    for i in range(samples.count()):
        samples.nth(i).focus()
        page.page.keyboard.press("Enter")
        page.settle()
        index = int(str(samples.nth(i).get_attribute("title")).split()[2].rstrip(":"))
        assert np.array_equal(page.images()[0], np.rint(255 * test_pixels[index].ravel()))
    check_numbers(page, web)


def test_while_drawing_one_request_is_under_way_and_the_newest_wins(
    page: OpenPage, web: RunningServer
) -> None:
    angles = np.linspace(0, 6 * np.pi, 300)
    page.draw([[(140 + 4 * a * np.cos(a), 140 + 4 * a * np.sin(a)) for a in angles]])
    assert page.most_traces == 1
    check_numbers(page, web)


def test_a_picture_is_taken_from_a_file(page: OpenPage, tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    picture = np.full((300, 200), 230, np.uint8)
    picture[50:250, 90:110] = 20  # a one, dark on light
    image.fromarray(picture).save(tmp_path / "one.png")
    page.page.locator("#picture-file").set_input_files(tmp_path / "one.png")
    page.page.wait_for_selector(".step:not(.is-empty) .step-title")
    page.settle()
    assert page.page.locator(".prediction-label").text_content() == "1"


def test_a_file_that_is_no_picture_is_refused_in_words(page: OpenPage, tmp_path: Path) -> None:
    before = page.images()
    (tmp_path / "letter.txt").write_text("no picture")
    page.page.locator("#picture-file").set_input_files(tmp_path / "letter.txt")
    page.page.get_by_text("letter.txt is not a picture").wait_for()
    assert np.array_equal(page.images(), before)


def test_the_scores_of_an_empty_drawing_are_no_prediction(page: OpenPage) -> None:
    page.page.get_by_role("button", name="Clear").click()
    page.settle()
    words = page.page.locator(".prediction-words")
    assert words.text_content() == "Nothing is drawn: an empty picture also gets scores."
    assert page.page.locator(".prediction-label.is-empty").count() == 1
    page.draw(SEVEN)
    assert page.page.locator(".prediction-label.is-empty").count() == 0


def test_the_prediction_is_announced_when_the_stroke_has_ended(page: OpenPage) -> None:
    page.draw(SEVEN)
    spoken = page.page.locator("#prediction")
    page.page.wait_for_selector("#prediction:has-text('The network reads 7.')", state="attached")
    assert spoken.get_attribute("role") == "status"


def test_pictures_show_the_values_of_the_stages(page: OpenPage, web: RunningServer) -> None:
    page.draw(SEVEN)
    trace = trace_of(web.address, page.images(), SHAPE)
    relu = float32s(trace.stages[3].values)[0]
    grid = page.page.locator("[data-stage=relu] canvas")
    readout = page.page.locator("[data-stage=relu] .readout")
    assert readout.text_content() == f"{np.count_nonzero(relu)} of {len(relu)} are not 0"
    grid.focus()
    page.page.keyboard.press("PageUp")
    page.page.keyboard.press("ArrowRight")
    assert grid.get_attribute("aria-valuenow") == "11"
    assert np.float32(readout.locator("data").get_attribute("value")) == relu[11]


def test_a_unit_that_is_chosen_becomes_the_focus(page: OpenPage) -> None:
    page.page.locator("[data-stage=linear1] canvas").focus()
    page.page.keyboard.press("ArrowRight")
    page.page.keyboard.press("Enter")
    focus = page.page.evaluate("async () => (await import('/main.js')).app.store.get().focus")
    assert focus == {"stage": "linear1", "unit": 1}


def test_changed_stages_are_marked(page: OpenPage, web: RunningServer) -> None:
    page.page.evaluate(
        "async () => (await import('/main.js')).app.store.set("
        "{ interventions: [{ stage: 'relu', zero: true }] })"
    )
    page.settle()
    badges = page.page.locator(".badge:visible")
    assert badges.count() == 1
    change = pb.Intervention(stage="relu", zero=True)
    trace = trace_of(web.address, page.images(), SHAPE, interventions=[change])
    check_prediction(page, float32s(trace.logits)[0])
