"""Snapshots of a training: of which epochs, what is in them, and what a checkpoint keeps."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from export.architecture import mlp, parameter_shapes
from export.bundle.manifest import SNAPSHOTS_FILE
from export.bundle.snapshots import (
    MAX_SNAPSHOT_BYTES,
    Snapshots,
    half_precision,
    most_snapshots,
    write_snapshots,
)
from export.network import weights_of
from tests.support.trainings import epoch, fitted, parameters_of, run_of
from training import trainer as trainer_module
from training.checkpoint import Checkpoint
from training.config import Recipe
from training.data import Data, load
from training.publish import snapshot_files
from training.snapshots import kept_epochs, snapshot_of
from training.trainer import Trainer, deterministic

MANY = 1_000_000  # the most epochs of a recipe


@pytest.fixture(scope="module")
def digits() -> Data:
    return load("digits", Path(), None)


@given(st.integers(1, MANY) | st.integers(1, 40), st.integers(2, 60))
@example(MANY, 2)
@example(MANY, 60)
@example(1, 2)
def test_kept_are_the_first_the_last_and_epochs_between(epochs: int, most: int) -> None:
    kept = kept_epochs(epochs, most)
    assert len(kept) == min(most, epochs + 1)
    assert (kept[0], kept[-1]) == (0, epochs)
    assert len(kept) == 2 or kept[1] == 1
    gaps = np.diff(kept)
    assert (gaps > 0).all()
    assert (np.diff(gaps) >= -1).all(), "dense at first; a gap is shorter by a rounding alone"


@pytest.mark.parametrize("most", [-1, 0, 1])
def test_nothing_is_kept_if_first_and_last_do_not_fit(most: int) -> None:
    assert kept_epochs(200, most) == ()


def test_the_bundled_recipe_keeps_fourteen() -> None:
    recipe = Recipe()
    kept = kept_epochs(recipe.epochs, most_snapshots(mlp((28, 28), recipe.hidden, 10)))
    assert kept == (0, 1, 2, 3, 5, 8, 12, 18, 27, 40, 60, 90, 134, 200)


@settings(max_examples=10)
@given(st.lists(st.integers(1, 700), min_size=1, max_size=3), st.integers(1, MANY))
@example([1], MANY)
@example([1] * 16, MANY)
@example([943], MANY)
@example([944], MANY)
@example([5000], 3)
def test_the_file_is_below_three_megabytes(hidden: list[int], epochs: int) -> None:
    stages = mlp((28, 28), hidden, 10)
    most = most_snapshots(stages)
    kept = kept_epochs(epochs, most)
    zeros = {name: np.zeros(shape, np.float16) for name, shape in parameter_shapes(stages).items()}
    written = write_snapshots(Snapshots(dict.fromkeys(kept, zeros), epochs))
    assert len(written) <= MAX_SNAPSHOT_BYTES
    if len(kept) < epochs + 1 and len(hidden) < 4:
        another = write_snapshots(Snapshots(dict.fromkeys(range(most + 1), zeros), epochs))
        assert len(another) > 0.85 * MAX_SNAPSHOT_BYTES, "hardly another one would have fitted"


def test_a_snapshot_is_the_averaged_network_of_its_epoch(digits: Data) -> None:
    trainer = Trainer(Recipe(dataset="digits", epochs=17, batch_images=512), digits)
    folded = {0: weights_of(trainer.average.folded())}
    with deterministic(1):
        for done in trainer.train():
            folded[done.epoch] = weights_of(trainer.average.folded())
    assert list(trainer.snapshots) == list(kept_epochs(17, 14))
    for number, snapshot in trainer.snapshots.items():
        assert list(snapshot) == list(folded[number])
        for name, array in snapshot.items():
            np.testing.assert_array_equal(array, folded[number][name].astype(np.float16))
    pixels = digits.held_out.pixels()
    logits = torch.from_numpy(pixels.numpy().reshape(len(pixels), -1))
    last = {name: torch.from_numpy(array).float() for name, array in trainer.snapshots[17].items()}
    hidden = torch.relu(logits @ last["linear1.weight"].T + last["linear1.bias"])
    found = hidden @ last["linear2.weight"].T + last["linear2.bias"]
    with torch.no_grad():
        exact = trainer.average(pixels)
    assert (found - exact).abs().max() < 0.02 * exact.abs().max(), "it takes plain pixels"


def test_keeping_snapshots_changes_no_bit_of_the_weights(
    digits: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeping = fitted(digits, batch_images=256)
    monkeypatch.setattr(trainer_module, "kept_epochs", lambda *_: ())
    without = fitted(digits, batch_images=256)
    assert (len(keeping.snapshots), len(without.snapshots)) == (3, 0)
    assert torch.equal(parameters_of(keeping), parameters_of(without))


def test_a_checkpoint_keeps_the_snapshots(digits: Data, tmp_path: Path) -> None:
    recipe = Recipe(dataset="digits", epochs=4, batch_images=256)
    checkpoint, first = Checkpoint(tmp_path, recipe, digits), Trainer(recipe, digits)
    (tmp_path / "digits").mkdir()
    with deterministic(1):
        epochs = first.train()
        for _ in range(2):
            next(epochs)
        checkpoint.save(first)
        resumed = Trainer(recipe, digits)
        checkpoint.restore(resumed)
        assert list(resumed.snapshots) == [0, 1, 2]
        list(epochs)
        list(resumed.train())
    files = [write_snapshots(Snapshots(each.snapshots, 4)) for each in (first, resumed)]
    assert files[0] == files[1]


def test_a_checkpoint_of_an_earlier_release_is_continued(digits: Data) -> None:
    recipe = Recipe(dataset="digits", epochs=3, batch_images=256)
    first, resumed = Trainer(recipe, digits), Trainer(recipe, digits)
    with deterministic(1):
        next(first.train())
        state = first.state()
        old = {name: value for name, value in state.items() if not name.startswith("snapshot/")}
        assert len(old) < len(state)
        resumed.restore(old, first.epochs)
        list(resumed.train())
    assert list(resumed.snapshots) == [0, 2, 3]
    for name, array in resumed.snapshots[0].items():
        np.testing.assert_array_equal(array, first.snapshots[0][name])


@pytest.mark.parametrize("wrong", [np.nan, np.inf, 65520.0])
def test_weights_beyond_half_precision_are_not_kept(wrong: float) -> None:
    weights = {"a": np.array([1, 65504], np.float32), "b": np.array([-wrong], np.float32)}
    assert snapshot_of(weights) is None
    assert snapshot_of({"a": weights["a"]}) is not None


def test_without_the_served_epoch_no_file_is_published(digits: Data) -> None:
    network = Trainer(Recipe(dataset="digits"), digits).average.folded()
    half = half_precision(weights_of(network))
    result = run_of(network, digits, [epoch(1, 1.0, 0.5)])
    assert snapshot_files(result) == {}
    assert snapshot_files(replace(result, snapshots={0: half})) == {}
    both = Snapshots({0: half, 1: half}, served_epoch=1)
    files = snapshot_files(replace(result, snapshots=both.by_epoch))
    assert files == {SNAPSHOTS_FILE: write_snapshots(both)}
