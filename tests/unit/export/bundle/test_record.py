"""The record of a training in a bundle: written and read back; what is wrong with it is named."""

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, save

from export.__main__ import main
from export.architecture import mlp, parameter_shapes
from export.bundle import Bundle
from export.bundle.manifest import HISTORY_FILE, SNAPSHOTS_FILE
from export.bundle.record import MAX_HISTORY_BYTES, TrainingRecord, read_record
from export.bundle.snapshots import (
    INDEX,
    MAX_SNAPSHOT_BYTES,
    Snapshots,
    half_precision,
    tensor_name,
    write_snapshots,
)
from export.bundle.weights import read_weights
from export.errors import BundleError
from tests.support.bundles import history_of, republish, snapshots_of, with_record
from tests.support.commands import run_here

EPOCHS, KEPT = 9, [0, 1, 3, 9]
Change = Callable[[dict[str, np.ndarray]], object]


@pytest.fixture
def recorded(tiny: Bundle, tmp_path: Path) -> Bundle:
    return with_record(tiny, tmp_path / "recorded", epochs=EPOCHS, kept=KEPT)


def verify(bundle: Bundle) -> subprocess.CompletedProcess[str]:
    return run_here(main, "verify", bundle.path, "--runtime", "onnx")


def test_what_is_read_is_what_was_written(recorded: Bundle) -> None:
    epochs, snapshots = read_record(recorded)
    lines = [json.loads(line) for line in history_of(EPOCHS).splitlines()]
    assert [each.model_dump() for each in epochs] == [
        {name: line[name] for name in epochs[0].model_dump()} for line in lines
    ]
    expected = snapshots_of(read_weights(recorded), KEPT, EPOCHS)
    assert snapshots
    assert (list(snapshots.by_epoch), snapshots.served_epoch) == (KEPT, EPOCHS)
    for number, parameters in snapshots.by_epoch.items():
        for name, array in parameters.items():
            assert array.dtype == np.float16
            np.testing.assert_array_equal(array, expected.by_epoch[number][name])


def test_a_bundle_without_a_record_has_an_empty_one(tiny: Bundle) -> None:
    assert read_record(tiny) == TrainingRecord((), None)
    done = verify(tiny)
    assert done.returncode == 0, done.stderr
    assert "training record" not in done.stdout


def test_verify_tells_what_the_record_holds(recorded: Bundle) -> None:
    done = verify(recorded)
    assert done.returncode == 0, done.stderr
    assert "training record: 9 epochs, 4 snapshots.\n" in done.stdout


@settings(max_examples=20)
@given(st.sets(st.integers(0, 10**6), min_size=1, max_size=5), st.integers(0, 99))
def test_the_file_has_the_same_bytes_for_the_same_snapshots(kept: set[int], seed: int) -> None:
    shapes = parameter_shapes(mlp((1, 2), (3,), 2))
    rng = np.random.default_rng(seed)
    by_epoch = {
        epoch: {name: rng.normal(size=shape).astype(np.float16) for name, shape in shapes.items()}
        for epoch in sorted(kept)
    }
    written = write_snapshots(Snapshots(by_epoch, max(kept)))
    assert written == write_snapshots(Snapshots(by_epoch, max(kept)))
    found = load(written)
    assert len(found) == len(kept) * len(shapes)
    for epoch, parameters in by_epoch.items():
        for name, array in parameters.items():
            np.testing.assert_array_equal(found[tensor_name(epoch, name)], array)


@given(st.floats(-65000, 65000, width=32))
def test_half_precision_rounds_to_the_nearest(value: float) -> None:
    half = half_precision({"a": np.array([value], np.float32)})["a"][0]
    above, below = np.nextafter(half, np.float16(np.inf)), np.nextafter(half, np.float16(-np.inf))
    error = abs(float(half) - value)
    assert error <= min(abs(float(above) - value), abs(float(below) - value))


def test_verify_fails_for_a_wrong_record(recorded: Bundle, tmp_path: Path) -> None:
    bundle = republish(recorded, tmp_path / "wrong", {SNAPSHOTS_FILE: b"none"})
    done = verify(bundle)
    assert done.returncode == 1
    assert f"training record: fails: {refusal(bundle)}" in done.stderr
    assert "onnx: every stage of" in done.stdout, "the rest is checked all the same"


def refusal(bundle: Bundle) -> str:
    with pytest.raises(BundleError) as refused:
        read_record(bundle)
    return str(refused.value)


def with_index(tensors: dict[str, np.ndarray], **index: Any) -> bytes:  # noqa: ANN401 (wrong ones)
    own = {"epochs": KEPT, "served_epoch": EPOCHS, **index}
    return save(tensors, metadata={INDEX: json.dumps(own)})


CHANGES: list[tuple[Change, str]] = [
    (lambda t: t.pop("003/linear2.bias"), "'003/linear2.bias': expected .*, got none"),
    (
        lambda t: t.update({"004/x": np.ones(1, np.float16)}),
        "'004/x': expected no such parameter, got",
    ),
    (lambda t: t.update({"003/linear2.bias": np.zeros(3, np.float16)}), r"\(2,\).*got \(\(3,\)"),
    (lambda t: t.update({"003/linear2.bias": np.zeros(2, np.float32)}), "float16.*got .*float32"),
    (lambda t: t["003/linear1.weight"].__setitem__((1, 2), np.inf), "'003/linear1.weight': .*fin"),
    (lambda t: t["000/linear2.bias"].__setitem__(0, np.nan), "'000/linear2.bias': expected finite"),
    (
        lambda t: t["009/linear1.weight"].__setitem__((3, 14), 9),
        "'linear1.weight' of epoch 9 differs from weights.safetensors",
    ),
]


@pytest.mark.parametrize(("change", "expected"), CHANGES)
def test_a_wrong_parameter_is_named(
    recorded: Bundle, tmp_path: Path, change: Change, expected: str
) -> None:
    tensors = {name: array.copy() for name, array in load(recorded.read(SNAPSHOTS_FILE)).items()}
    change(tensors)
    content = {SNAPSHOTS_FILE: with_index(tensors)}
    text = refusal(republish(recorded, tmp_path / "wrong", content))
    assert SNAPSHOTS_FILE in text
    assert re.search(expected, text), text


@pytest.mark.parametrize(
    ("index", "expected"),
    [
        ({"epochs": [0, 3, 1, 9]}, "expected ascending epochs, got [0, 3, 1, 9]"),
        ({"epochs": [0, 1, 3, 3, 9]}, "expected ascending epochs"),
        ({"epochs": [-1, 0, 1, 3, 9]}, "no snapshots of a training"),
        ({"epochs": []}, "expected the epoch that is served, 9, among the epochs []"),
        ({"served_epoch": 4}, "expected the epoch that is served, 4, among"),
        ({"served_epoch": 3}, "of epoch 3 differs from weights.safetensors"),
        ({"other": 1}, "no snapshots of a training"),
    ],
)
def test_a_wrong_index_is_named(
    recorded: Bundle, tmp_path: Path, index: dict[str, Any], expected: str
) -> None:
    content = {SNAPSHOTS_FILE: with_index(load(recorded.read(SNAPSHOTS_FILE)), **index)}
    assert expected in refusal(republish(recorded, tmp_path / "wrong", content))


@pytest.mark.parametrize("content", [b"", b"none", bytes(64), save({"a": np.zeros(1)})])
def test_other_bytes_are_no_snapshots(recorded: Bundle, tmp_path: Path, content: bytes) -> None:
    bundle = republish(recorded, tmp_path / "wrong", {SNAPSHOTS_FILE: content})
    assert f"{SNAPSHOTS_FILE}: no snapshots of a training" in refusal(bundle)


LINE = history_of(1).decode()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"{\n", "line 1 is no record of an epoch"),
        (b"\xff\n", "line 1 is no record of an epoch"),
        (b"[1]\n", "line 1 is no record of an epoch"),
        (LINE.replace('"train_loss"', '"loss"').encode(), "line 1 .*train_loss: Field required"),
        (LINE.replace('"epoch": 1', '"epoch": 2').encode(), "line 1: expected epoch 1, got 2"),
        (LINE.replace('"epoch": 1', '"epoch": 0').encode(), "line 1 .*epoch: Input should be gre"),
        (LINE.replace("epoch 1:", "\\ud800").encode(), "line 1 is no record of an epoch"),
        ((LINE + LINE).encode(), "line 2: expected epoch 2, got 1"),
        ((LINE + "\n").encode(), "line 2 is no record of an epoch"),
        (history_of(EPOCHS - 1), f"has epoch {EPOCHS}, {HISTORY_FILE} has {EPOCHS - 1}"),
        (b"", f"has epoch {EPOCHS}, {HISTORY_FILE} has 0"),
        (b" " * (MAX_HISTORY_BYTES + 1), f"expected at most {MAX_HISTORY_BYTES} bytes"),
    ],
)
def test_a_wrong_history_is_named(
    recorded: Bundle, tmp_path: Path, content: bytes, expected: str
) -> None:
    text = refusal(republish(recorded, tmp_path / "wrong", {HISTORY_FILE: content}))
    assert re.search(expected, text), text


def test_a_diverged_training_has_figures_all_the_same(tiny: Bundle, tmp_path: Path) -> None:
    line = LINE.replace('"train_loss": 2.0', '"train_loss": NaN').encode()
    bundle = republish(tiny, tmp_path / "diverged", {HISTORY_FILE: line})
    (epoch,), snapshots = read_record(bundle)
    assert np.isnan(epoch.train_loss)
    assert snapshots is None


def test_a_file_over_the_limit_is_not_read(recorded: Bundle, tmp_path: Path) -> None:
    content = {SNAPSHOTS_FILE: bytes(MAX_SNAPSHOT_BYTES + 1)}
    bundle = republish(recorded, tmp_path / "large", content)
    text = refusal(bundle)
    assert f"expected at most {MAX_SNAPSHOT_BYTES} bytes, got {MAX_SNAPSHOT_BYTES + 1}" in text
    (bundle.path / SNAPSHOTS_FILE).unlink()
    with pytest.raises(BundleError, match="expected at most"):
        read_record(bundle)
