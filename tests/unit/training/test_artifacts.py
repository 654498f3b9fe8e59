"""What a training leaves to read: words, chart, pictures, TensorBoard's events."""

import io
import json
from collections.abc import Sequence
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from PIL import Image
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from export.architecture import mlp
from export.bundle import open_bundle
from export.network import Network
from tests.support.trainings import epoch, run_of, train
from training.config import Recipe
from training.data import Data, load
from training.errors import ConfigurationError
from training.evaluate import Evaluation
from training.history import Epoch, observation
from training.pictures import evaluation_picture, history_picture, weights_picture
from training.progress import CHART_COLUMNS, CHART_ROWS, TensorBoard, Terminal, chart, table_row
from training.trainer import Trainer


@pytest.fixture(scope="module")
def digits() -> Data:
    return load("digits", Path(), None)


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        ([], (1.2, 0.55), "starts learning, loss high"),
        ([], (0.05, 0.98), "starts learning, loss low"),
        ([(1.2, 0.55)], (0.8, 0.72), "improves fast, loss falls"),
        ([(0.5, 0.97)], (0.4, 0.972), "improves, loss falls"),
        ([(0.5, 0.97)], (0.6, 0.9702), "improves slightly, loss rises"),
        ([(0.5, 0.98)], (0.4, 0.9798), "converges, loss falls"),
        ([(0.5, 0.99), (0.4, 0.98)], (0.3, 0.985), "below its best of 99.00%, loss falls"),
        ([(0.5, 0.98, 1)], (0.4, 0.9798, 2), "converges, loss falls, 1 unit died"),
        ([(0.5, 0.98, 1)], (0.4, 0.9798, 5), "converges, loss falls, 4 units died"),
    ],
)
def test_observations_follow_the_figures(
    before: Sequence[tuple[float, float, int]], now: tuple[float, float, int], expected: str
) -> None:
    earlier = [epoch(index, *figures) for index, figures in enumerate(before, start=1)]
    assert observation(earlier, epoch(9, *now)) == expected


def test_the_row_of_an_epoch_has_its_figures() -> None:
    row = table_row([epoch(1, 0.5, 0.97), epoch(2, 0.25, 0.985, dead_units=7)])
    for figure in (" 2 ", "0.2500", "98.50%", "0.001", " 0.5 ", " 7 ", "1.00", "7 units died"):
        assert figure in row


@hypothesis.given(values=st.lists(st.floats(0, 100), min_size=1, max_size=500))
def test_a_chart_fits_and_columns_follow_their_values(values: list[float]) -> None:
    heading, *rows = chart("error", values).split("\n")
    assert heading.startswith("error: ")
    assert len(rows) == CHART_ROWS
    assert {len(row) for row in rows} <= set(range(1, CHART_COLUMNS + 1))
    heights = [
        sum(" ▁▂▃▄▅▆▇█".index(row[column]) for row in rows) for column in range(len(rows[0]))
    ]
    assert min(heights) >= 1
    if len(values) <= CHART_COLUMNS:
        repeats = CHART_COLUMNS // len(values)
        assert len(heights) == repeats * len(values)
        order = np.argsort(values, kind="stable")
        assert (np.diff(np.array(heights)[::repeats][order]) >= 0).all()


def picture_of(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image.convert("RGB"))


EPOCHS = [epoch(1, 0.5, 0.9), epoch(2, 0.4, 0.95), epoch(3, 0.3, 1.0)]
LABELS = [str(digit) for digit in range(10)]


@pytest.fixture(scope="module")
def evaluations(digits: Data) -> tuple[Evaluation, Evaluation]:
    """Those of two networks."""
    torch.manual_seed(0)
    one, other = (run_of(Network(mlp((28, 28), [16], 10)), digits).test for _ in range(2))
    return one, other


def test_the_history_is_drawn_from_its_figures(
    digits: Data, evaluations: tuple[Evaluation, Evaluation]
) -> None:
    def draw(epochs: Sequence[Epoch], evaluation: Evaluation, labels: Sequence[str]) -> np.ndarray:
        return picture_of(history_picture(epochs, evaluation, digits.test, labels, "title"))

    one, other = evaluations
    drawn, long = draw(EPOCHS, one, LABELS), draw(EPOCHS, one, ["a long name"] * 10)
    for picture in (drawn, long):
        assert picture.shape[1] > 1000
        assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 50, "an empty picture"
    half = drawn.shape[0] // 3
    assert not np.array_equal(draw(EPOCHS[:1], one, LABELS)[:half], drawn[:half]), "the curves"
    mistakes = draw(EPOCHS, other, LABELS)[half + 50 :]
    assert not np.array_equal(mistakes, drawn[half + 50 :]), "the mistakes"
    assert not np.array_equal(long[half + 50 :], drawn[half + 50 :]), "the labels"


def test_reliability_and_robustness_are_drawn_from_their_figures(
    evaluations: tuple[Evaluation, Evaluation],
) -> None:
    one, other = (picture_of(evaluation_picture(each, "title")) for each in evaluations)
    for part in range(4):  # the reliability plot, then three conditions
        columns = slice(one.shape[1] * part // 4, one.shape[1] * (part + 1) // 4)
        assert not np.array_equal(one[:, columns], other[:, columns])


@pytest.mark.parametrize(("units", "following"), [(1, 10), (128, 10), (300, 10), (20, 7)])
def test_the_weights_are_drawn_whatever_their_number(units: int, following: int) -> None:
    torch.manual_seed(units)
    weight, outgoing = torch.randn(units, 784), torch.randn(following, units)
    content = weights_picture(weight, outgoing, LABELS)
    drawn = picture_of(content)
    red, blue = (
        (drawn[..., channel].astype(int) - drawn[..., 2 - channel] > 80).mean()
        for channel in (0, 2)
    )
    assert red > 0.02
    assert blue > 0.02
    if units == 20:
        assert weights_picture(weight, outgoing, LABELS) == content, "the same picture every time"


def test_tensorboard_gets_every_figure_of_every_epoch(tmp_path: Path) -> None:
    arguments = ("--dataset", "digits", "--epochs", "2", "--hidden", "4", "--models-dir", tmp_path)
    done = train(*arguments, "--tensorboard", tmp_path / "events")
    assert done.returncode == 0, done.stderr
    events = EventAccumulator(str(tmp_path / "events" / "seed-0"))
    events.Reload()
    history = (open_bundle(tmp_path / "digits" / "1").path / "history.jsonl").read_text()
    recorded = [json.loads(line)["train_loss"] for line in history.splitlines()]
    assert [one.step for one in events.Scalars("train_loss")] == [1, 2]
    # An event has float32.
    assert [one.value for one in events.Scalars("train_loss")] == pytest.approx(recorded, rel=1e-6)
    expected = set(vars(epoch(1, 0.5, 0.5))) - {"weight_norms"}
    expected |= {"weight_norm/linear1", "weight_norm/linear2"}
    assert set(events.Tags()["scalars"]) == expected


def test_missing_tensorboard_is_an_error_with_its_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "tensorboard", None)
    for name in ("torch.utils.tensorboard", "torch.utils.tensorboard.writer"):
        monkeypatch.delitem(__import__("sys").modules, name, raising=False)
    with pytest.raises(ConfigurationError, match="tensorboard extra"):
        TensorBoard(tmp_path)


def test_the_progress_of_a_resumed_training_goes_on(digits: Data) -> None:
    trainer = Trainer(Recipe(dataset="digits", epochs=3, batch_images=32), digits)
    trainer.restore(trainer.state(), [epoch(1, 1.2, 0.55), epoch(2, 0.8, 0.72)])
    printed = io.StringIO()
    terminal = Terminal(Console(file=printed, width=200), trainer)
    with terminal.live():
        terminal.on_step()
        terminal.on_epoch_end(epoch(3, 0.5, 0.83))
    _, row, heading, *_ = printed.getvalue().splitlines()
    assert row.startswith("    3   0.5000")
    assert row.endswith("improves fast, loss falls"), "the epochs before it count"
    assert heading.startswith("error on held-out images, %: 45 at the top, 17 at the bottom")
    assert len(trainer.epochs) == 2, "the trainer's list is its own"
