"""The evaluation of a network, against NumPy and figures worked out by hand."""

from pathlib import Path

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from scipy import stats
from torch import nn

from export.architecture import mlp
from export.network import Network
from tests.support.trainings import epoch, run_of
from training.data import Data, Split, load
from training.evaluate import (
    CALIBRATION_BINS,
    Score,
    calibration_bins,
    calibration_error,
    evaluate,
    rotate,
    score,
    shift,
)
from training.history import seconds_to
from training.results import best_result
from training.seeds import seeds_rows, spread


class Lookup(nn.Module):
    """Answers fixed logits for as many images as it has, whatever they are."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.logits[: len(images)]


def random_split(count: int, classes: int, seed: int) -> tuple[Split, torch.Tensor]:
    random = np.random.default_rng(seed)
    images = torch.from_numpy(random.integers(0, 256, (count, 28, 28), np.uint8))
    labels = torch.from_numpy(random.integers(0, classes, count))
    return Split(images, labels), torch.from_numpy(random.normal(0, 3, (count, classes)))


@hypothesis.given(count=st.integers(1, 60), classes=st.integers(2, 12), seed=st.integers(0, 999))
def test_accuracy_loss_confusion_and_mistakes_match_numpy(
    count: int, classes: int, seed: int
) -> None:
    split, logits = random_split(count, classes, seed)
    found = evaluate(Lookup(logits), split)
    assert score(Lookup(logits), split) == Score(found.accuracy, found.loss)
    labels, values = split.labels.numpy(), logits.numpy()
    predictions = values.argmax(axis=1)
    probabilities = np.exp(values) / np.exp(values).sum(axis=1, keepdims=True)
    assert found.accuracy == pytest.approx((predictions == labels).mean())
    assert found.loss == pytest.approx(-np.log(probabilities[range(count), labels]).mean())
    confusion = np.zeros((classes, classes), int)
    np.add.at(confusion, (labels, predictions), 1)
    assert np.array_equal(found.confusion.numpy(), confusion)
    wrong = np.flatnonzero(predictions != labels)
    assert sorted(mistake.index for mistake in found.mistakes) == wrong.tolist()
    confidences = [mistake.confidence for mistake in found.mistakes]
    assert confidences == sorted(confidences, reverse=True)
    for mistake in found.mistakes:
        assert mistake.label == labels[mistake.index]
        assert mistake.prediction == predictions[mistake.index]
        assert mistake.confidence == pytest.approx(probabilities[mistake.index].max())


@hypothesis.given(
    pairs=st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=100)
)
def test_the_calibration_error_is_the_weighted_distance(
    pairs: list[tuple[float, bool]],
) -> None:
    """Guo et al. 2017, equation 3, interval by interval in plain Python."""
    expected = 0.0
    for number in range(CALIBRATION_BINS):
        low, high = number / CALIBRATION_BINS, (number + 1) / CALIBRATION_BINS
        # The edges as the product with the number of intervals rounds them.
        inside = [
            (confidence, right)
            for confidence, right in pairs
            if number < confidence * CALIBRATION_BINS <= number + 1
            or (number == 0 and confidence == 0)
        ]
        assert low < high
        if inside:
            confidence = sum(one for one, _ in inside) / len(inside)
            accuracy = sum(right for _, right in inside) / len(inside)
            expected += len(inside) / len(pairs) * abs(accuracy - confidence)
    confidences, right = zip(*pairs, strict=True)
    bins = calibration_bins(torch.tensor(confidences, dtype=torch.float64), torch.tensor(right))
    assert sum(one.images for one in bins) == len(pairs)
    assert calibration_error(bins) == pytest.approx(expected, abs=1e-9)


def test_an_always_sure_half_right_network_has_error_half() -> None:
    logits = torch.tensor([[100.0, 0.0]] * 4)
    split = Split(torch.zeros(4, 28, 28, dtype=torch.uint8), torch.tensor([0, 1, 0, 1]))
    found = evaluate(Lookup(logits), split)
    assert found.calibration_error == pytest.approx(0.5)
    assert [one.images for one in found.bins] == [4]


class Brightest(nn.Module):
    """Says in which quarter (0 top left, 1 top right, 2, 3) the most light is."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        quarters = [images[:, :14, :14], images[:, :14, 14:], images[:, 14:, :14]]
        return torch.stack([q.sum((1, 2)) for q in [*quarters, images[:, 14:, 14:]]], dim=1)


def test_robustness_is_the_accuracy_on_changed_images() -> None:
    """Each level against the same accuracy of images that are changed one way at a time."""
    images = torch.zeros(4, 28, 28, dtype=torch.uint8)
    for index, (row, column) in enumerate(((10, 10), (10, 15), (15, 10), (15, 15))):
        images[index, row : row + 3, column : column + 3] = 255
    split, network = Split(images, torch.arange(4)), Brightest()
    found = {one.condition: one for one in evaluate(network, split).robustness}
    assert list(found) == ["shifted", "rotated", "noisy"]
    for one in found.values():
        assert one.levels[0] == 0
        assert one.accuracies[0] == 1.0
        assert list(one.levels) == sorted(one.levels)

    def right(changed: torch.Tensor) -> float:
        return float((network(changed).argmax(dim=1) == split.labels).float().mean())

    pixels = split.pixels()
    for level, accuracy in zip(found["shifted"].levels, found["shifted"].accuracies, strict=True):
        ways = [(level, 0), (-level, 0), (0, level), (0, -level)]
        assert accuracy == pytest.approx(np.mean([right(shift(pixels, *way)) for way in ways]))
    for level, accuracy in zip(found["rotated"].levels, found["rotated"].accuracies, strict=True):
        both = [right(rotate(pixels, level)), right(rotate(pixels, -level))]
        assert accuracy == pytest.approx(np.mean(both))
    assert found["shifted"].accuracies[-1] < 1
    assert found["shifted"].first_level_below(0.9) == 3
    assert found["noisy"].first_level_below(0.0) is None


def test_noise_and_inversion_lower_the_accuracy(mnist: Data) -> None:
    from export.bundle import open_bundle  # noqa: PLC0415
    from export.bundle.weights import read_weights  # noqa: PLC0415
    from export.network import network_of  # noqa: PLC0415
    from tests.support.bundles import MODELS_DIR  # noqa: PLC0415

    bundle = open_bundle(MODELS_DIR / "mnist" / "1")
    found = evaluate(network_of(bundle.manifest.stages, read_weights(bundle)), mnist.test)
    assert found.accuracy == bundle.manifest.metrics["test_accuracy"]
    assert found.calibration_error < 0.02
    assert found.inverted_accuracy < 0.5
    noisy = found.robustness[-1].accuracies
    assert noisy[-1] < noisy[0]
    assert min(noisy) > 0.2


@hypothesis.given(values=st.lists(st.floats(0.2, 0.8), min_size=2, max_size=20))
def test_the_spread_matches_scipy(values: list[float]) -> None:
    found = spread(values)
    assert found.mean == pytest.approx(np.mean(values))
    assert found.deviation == pytest.approx(np.std(values, ddof=1), abs=1e-12)
    error = stats.sem(values)
    hypothesis.assume(error > 1e-9)
    low, high = stats.t.interval(0.95, len(values) - 1, np.mean(values), error)
    assert (found.low, found.high) == pytest.approx((max(0.0, low), min(1.0, high)))


def test_the_best_result_is_chosen_by_held_out_images() -> None:
    data = load("digits", Path(), None)
    torch.manual_seed(0)
    runs = [run_of(Network(mlp((28, 28), [16], 10)), data, seed=seed) for seed in range(5)]
    accuracies = [run.held_out.accuracy for run in runs]
    assert best_result(runs).held_out.accuracy == max(accuracies)
    assert accuracies.index(max(accuracies)) != max(
        range(5), key=lambda seed: runs[seed].test.accuracy
    ), "the two choices must differ for this test to tell them apart"


def test_seeds_rows_have_each_result_and_the_spread() -> None:
    data = load("digits", Path(), None)
    runs = [
        run_of(
            Network(mlp((28, 28), [16], 10)),
            data,
            [epoch(1, 0.5, 0.97), epoch(2, 0.4, 0.985)],
            seed,
        )
        for seed in (3, 4)
    ]
    first, second, mean, deviation, interval = seeds_rows(runs)
    assert (first[0], second[0]) == ("3", "4")
    assert first[3:6] == ("2.0", "never", "2")
    assert first[6] == runs[0].weights_sha256[:8] != second[6]
    assert mean[2] == f"{np.mean([run.test.accuracy for run in runs]):.3%}"
    assert deviation[0] == "deviation"
    assert interval[0] == "95% interval"
    assert len(seeds_rows(runs[:1])) == 1


def test_seconds_to_an_accuracy_end_with_its_first_epoch() -> None:
    epochs = [epoch(1, 0.5, 0.97), epoch(2, 0.4, 0.98), epoch(3, 0.3, 0.97)]
    assert seconds_to(epochs, 0.98) == 2.0
    assert seconds_to(epochs, 0.99) is None
