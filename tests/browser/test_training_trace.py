"""Training trace: the record, and what the parameters of each kept epoch say to the drawing."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Locator, expect

from export.bundle import Bundle
from export.bundle.manifest import HISTORY_FILE
from forward.v1 import forward_pb2 as pb
from tests.support.bundles import history_of, republish, with_record
from tests.support.pages import SEVEN, OpenPage
from tests.support.panels import (
    calls,
    column,
    look,
    pixels,
    rows,
    sequential_pass,
    serving,
    signs,
    take_refusal,
    wait,
)
from tests.support.servers import RunningServer

EPOCHS, KEPT = 30, [0, 1, 3, 10, 30]
RECORD, SCORES = "On held-out images", "Scores with the weights"


@pytest.fixture(scope="module")
def trained(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("recorded")
    with serving(with_record(bundle, folder, epochs=EPOCHS, kept=KEPT)) as server:
        yield server


@pytest.fixture
def lesson(visit: Callable[..., OpenPage], trained: RunningServer) -> OpenPage:
    page = visit(trained)
    page.open()
    page.draw(SEVEN)
    return page


def at_epoch(lesson: OpenPage, position: int) -> Locator:
    """Move the slider by keys, and wait until it shows that epoch."""
    section = look(lesson, "training")
    section.locator("#epoch").focus()
    lesson.page.keyboard.press("Home")
    for _ in range(position):
        lesson.page.keyboard.press("ArrowRight")
    epoch = KEPT[position]
    expect(section.locator("output")).to_contain_text(f"epoch {epoch}" if epoch else "Before")
    wait(lesson)
    return section


def test_the_table_has_every_epoch_of_the_record(lesson: OpenPage, trained: RunningServer) -> None:
    section = look(lesson, "training")
    section.get_by_role("button", name="Show all 30 epochs").wait_for()
    with calls(trained) as stub:
        record = stub.GetTrainingHistory(pb.GetTrainingHistoryRequest())
    for epochs in (KEPT[1:], range(1, EPOCHS + 1)):
        expected = [record.epochs[epoch - 1] for epoch in epochs]
        table = rows(section, RECORD)
        shown = [(row[1].number, row[2].number, row[3].text) for row in table]
        assert shown == [
            (each.held_out_loss, each.held_out_accuracy, each.observation) for each in expected
        ]
        numbers = [str(each.epoch) for each in expected]
        numbers[-1] += " (served)"
        assert [row[0].text for row in table] == numbers
        for row in table:
            assert float(row[1].decimal) == pytest.approx(row[1].number, abs=5.1e-5)
            assert float(row[2].decimal) / 100 == pytest.approx(row[2].number, abs=5.1e-5)
        lesson.page.get_by_role("button", name="epochs").or_(
            lesson.page.get_by_role("button", name="Show fewer")
        ).click()


def test_the_chart_has_every_epoch_and_a_text(lesson: OpenPage) -> None:
    section = look(lesson, "training")
    section.locator("svg").first.wait_for()
    for name, key in (("Loss", "2"), ("Accuracy", "3")):
        chart = section.get_by_role("img", name=f"{name} after each epoch")
        assert chart.count() == 1, key
        assert "The table below has the numbers" in str(chart.locator("desc").text_content())
        for line in ("train", "held-out"):
            points = str(chart.locator(f"polyline.{line}").get_attribute("points")).split()
            assert len(points) == EPOCHS
            heights = [float(point.split(",")[1]) for point in points]
            assert heights == sorted(heights, reverse=name == "Accuracy")
        assert chart.locator("line.is-served").count() == 1


def test_the_parameters_of_each_epoch_judge_the_drawing(
    lesson: OpenPage, trained: RunningServer
) -> None:
    for position, epoch in enumerate(KEPT):
        section = at_epoch(lesson, position)
        with calls(trained) as stub:
            kept = stub.GetParameters(pb.GetParametersRequest(epoch=epoch))
        weights = {
            f"{stage.stage}.{name}": np.frombuffer(tensor.data, "<f2")
            .astype(np.float32)
            .reshape(tuple(tensor.shape))
            for stage in kept.stages
            for name, tensor in (("weight", stage.weight), ("bias", stage.bias))
        }
        scores = sequential_pass(weights, pixels(lesson))["output"]
        np.testing.assert_array_equal(column(section, SCORES, 2).astype(np.float32), scores)
        verdict = f"It reads your drawing as {np.argmax(scores)}."
        assert section.locator(".verdict").text_content() == verdict
        for row in rows(section, SCORES):
            assert "e" not in row[2].text + row[3].text
        widths = section.locator(".amount i").evaluate_all(
            "(bars) => bars.map((bar) => parseFloat(bar.style.width))"
        )
        assert max(widths) == pytest.approx(
            50 if scores.any() else 0, abs=0.1
        )  # of the epoch's own scale
        check_grid(signs(section.locator("canvas.weights")), weights["linear1.weight"])


def check_grid(drawn: np.ndarray, weight: np.ndarray) -> None:
    """Compare the signs of some units' pictures with their weights."""
    columns = (drawn.shape[1] + 1) // 29
    for unit in (0, 17, 127):
        top, left = 29 * (unit // columns), 29 * (unit % columns)
        picture = weight[unit].reshape(28, 28)
        clear = abs(picture) > 0.05 * abs(weight).max()
        assert (drawn[top : top + 28, left : left + 28] == np.sign(picture))[clear].all()


def test_weights_are_drawn_on_whole_pixels(lesson: OpenPage) -> None:
    section = look(lesson, "training")
    canvas = section.locator("canvas.weights")
    for width in (1440, 1100, 390, 320):
        lesson.page.set_viewport_size({"width": width, "height": 900})
        canvas.scroll_into_view_if_needed()
        section.locator("#epoch").scroll_into_view_if_needed()
        lesson.page.wait_for_function(
            """() => {
              const canvas = document.querySelector('canvas.weights');
              const size = canvas.getBoundingClientRect().width * devicePixelRatio / canvas.width;
              return canvas.width > 1 && size >= 1 && Math.abs(size - Math.round(size)) < 1e-3;
            }"""
        )


def test_the_slider_is_moved_by_the_mouse(lesson: OpenPage) -> None:
    section = look(lesson, "training")
    slider = section.locator("#epoch")
    slider.scroll_into_view_if_needed()
    expect(section.locator("output")).to_have_text("After epoch 30 (served)")
    box = slider.bounding_box()
    assert box
    lesson.page.mouse.move(box["x"] + box["width"] - 8, box["y"] + box["height"] / 2)
    lesson.page.mouse.down()
    lesson.page.mouse.move(box["x"] + 8, box["y"] + box["height"] / 2, steps=4)
    lesson.page.mouse.up()
    expect(section.locator("output")).to_have_text("Before training")
    assert slider.get_attribute("aria-valuetext") == "Before training"


def test_the_epochs_play_to_the_last(lesson: OpenPage) -> None:
    section = at_epoch(lesson, 3)
    section.get_by_role("button", name="Play").click()
    expect(section.locator("output")).to_have_text("After epoch 30 (served)")
    expect(section.get_by_role("button", name="Play")).to_have_count(1)


def test_drawing_on_is_judged_again(lesson: OpenPage) -> None:
    section = at_epoch(lesson, 1)
    before = column(section, SCORES, 2)
    lesson.draw([[(60, 140), (220, 140)]])
    at_epoch(lesson, 1)
    assert not np.array_equal(column(section, SCORES, 2), before)


def test_a_network_without_a_record_says_so(
    visit: Callable[..., OpenPage], tiny: Bundle, tmp_path: Path
) -> None:
    with serving(tiny) as server:
        page = visit(server)
        page.open()
        look(page, "training").get_by_text("without a record of its training").wait_for()
        take_refusal(page, 404)
        page.page.close()  # it would miss the server
    history = republish(tiny, tmp_path / "history", {HISTORY_FILE: history_of(4)})
    with serving(history) as server:
        page = visit(server)
        page.open()
        section = look(page, "training")
        section.get_by_text("without the weights of its earlier epochs").wait_for()
        assert len(rows(section, RECORD)) == 4
        assert section.locator("#epoch").count() == 0
        page.page.close()  # it would miss the server


def test_the_bundled_model_shows_its_own_training(page: OpenPage, web: RunningServer) -> None:
    page.draw(SEVEN)
    section = look(page, "training")
    section.locator("#epoch").scroll_into_view_if_needed()
    with calls(web) as stub:
        record = stub.GetTrainingHistory(pb.GetTrainingHistoryRequest())
    served = f"After epoch {record.served_epoch} (served)"
    expect(section.locator("output")).to_have_text(served)
    assert section.locator("#epoch").get_attribute("max") == str(len(record.snapshot_epochs) - 1)
    wait(page)
    assert section.locator(".verdict").text_content() == "It reads your drawing as 7."
    then, now = (column(section, SCORES, index) for index in (2, 3))
    np.testing.assert_allclose(then, now, atol=0.1)  # of half precision
