"""The drift reference in a bundle: counted, written, read back; what is wrong with it is named."""

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from export.__main__ import main
from export.bundle import Bundle
from export.bundle.manifest import DRIFT_REFERENCE_FILE
from export.bundle.reference import (
    MAX_REFERENCE_BYTES,
    count_features,
    read_reference,
    write_reference,
)
from export.errors import BundleError
from export.features import FEATURES, Feature, bins_of, bounds_of, features_of
from export.runtimes import open_runner
from tests.support.bundles import TINY_SHAPE, random_images, republish, with_reference
from tests.support.commands import run_here
from tests.support.servers import start_server

if TYPE_CHECKING:
    from training.data import Data

Change = Callable[[dict[str, Any]], object]
LOGITS = arrays(
    np.float32,
    st.tuples(st.integers(1, 4), st.integers(2, 5)),
    elements=st.floats(-50, 50, width=32),
)


def exact_features(pixels: np.ndarray, logits: np.ndarray) -> dict[Feature, float]:
    """Return the features of one image from their definitions, in Python's own floats."""
    values, scores = pixels.ravel().tolist(), logits.tolist()
    largest = max(scores)
    others = sorted(scores)
    return {
        "intensity": math.fsum(values) / len(values),
        "ink": sum(value > 0.5 for value in values) / len(values),
        "class": scores.index(largest),
        "confidence": 1 / math.fsum(math.exp(score - largest) for score in scores),
        "gap": others[-1] - others[-2],
    }


@given(LOGITS, st.integers(0, 99))
def test_features_are_those_of_their_definitions(logits: np.ndarray, seed: int) -> None:
    pixels = random_images(len(logits), (3, 5), seed)
    found = features_of(pixels, logits)
    assert tuple(found) == FEATURES
    for number, (image, scores) in enumerate(zip(pixels, logits, strict=True)):
        for feature, value in exact_features(image, scores).items():
            assert found[feature][number] == pytest.approx(value, rel=1e-6, abs=1e-7)


@given(st.sampled_from(FEATURES), st.floats(0, 100), st.integers(2, 12))
def test_a_value_lies_below_the_bound_of_its_bin(
    feature: Feature, value: float, classes: int
) -> None:
    bounds = (-math.inf, *bounds_of(feature, classes), math.inf)
    bin_ = int(bins_of(np.array([value]), bounds[1:-1])[0])
    assert bounds[bin_] < value <= bounds[bin_ + 1]


def test_what_is_read_is_what_was_counted(tiny: Bundle, tmp_path: Path) -> None:
    pixels = random_images(300, TINY_SHAPE)
    logits = open_runner(tiny, "onnx", "cpu").predict(pixels)
    reference = read_reference(with_reference(tiny, tmp_path / "with", pixels))
    assert reference is not None
    assert reference.images == 300
    for feature in FEATURES:
        counts = dict.fromkeys(range(len(bounds_of(feature, 2)) + 1), 0)
        for image, scores in zip(pixels, logits, strict=True):
            value = exact_features(image, scores)[feature]
            counts[sum(value > bound for bound in bounds_of(feature, 2))] += 1
        assert reference.histograms[feature].counts == tuple(counts.values())


def test_parts_count_as_the_whole() -> None:
    pixels, logits = random_images(9, TINY_SHAPE), random_images(9, (2,), seed=1)
    whole = count_features([(pixels, logits)], 2, "")
    assert whole == count_features([(pixels[:4], logits[:4]), (pixels[4:], logits[4:])], 2, "")


def test_the_bundled_model_has_its_training_images(bundle: Bundle, mnist: "Data") -> None:
    """Counted by the runtime that serves, where training counts by eager torch."""
    reference = read_reference(bundle)
    assert reference is not None
    runner, pixels = open_runner(bundle, "onnx", "cpu"), mnist.train.pixels().numpy()
    counted = count_features([(pixels, runner.predict(pixels))], 10, mnist.sha256)
    assert (reference.dataset_sha256, reference.images) == (mnist.sha256, 55_000)
    for feature, histogram in counted.histograms.items():
        found = np.array(reference.histograms[feature].counts)
        moved = np.abs(found - histogram.counts).sum()
        assert moved <= 4, f"{feature}: only values at a bound may differ by a rounding"


def test_a_bundle_without_a_reference_has_none(tiny: Bundle) -> None:
    assert read_reference(tiny) is None
    done = run_here(main, "verify", tiny.path, "--runtime", "onnx")
    assert done.returncode == 0, done.stderr
    assert "drift" not in done.stdout


def test_verify_tells_what_the_reference_holds(tiny: Bundle, tmp_path: Path) -> None:
    given_images = with_reference(tiny, tmp_path / "with", random_images(7, TINY_SHAPE))
    done = run_here(main, "verify", given_images.path, "--runtime", "onnx")
    assert done.returncode == 0, done.stderr
    assert "drift reference: 7 images.\n" in done.stdout


def _counts(feature: str) -> Change:
    return lambda written: written["histograms"][feature]["counts"].append(0)


def _bounds(feature: str, bounds: list[float]) -> Change:
    def change(written: dict[str, Any]) -> None:
        total = written["images"]
        written["histograms"][feature] = {
            "upper_bounds": bounds,
            "counts": [total, *([0] * len(bounds))],
        }

    return change


CHANGES: list[tuple[Change, str]] = [
    (lambda written: written.pop("images"), "images: Field required"),
    (lambda written: written.update(images=8), "intensity: 7 images in the bins, expected 8"),
    (lambda written: written.update(more=1), "more: Extra inputs are not permitted"),
    (lambda written: written["histograms"].pop("gap"), "no histogram of gap"),
    (_counts("ink"), "histograms.ink: .*14 counts for 12 bounds"),
    (_bounds("gap", [1.0, 1.0]), r"histograms.gap: .*expected ascending bounds, got \[1.0, 1.0\]"),
    (_bounds("gap", [0.5, 1.0]), r"gap: expected the bins of this release, 1, 2, .*, got 0.5, 1"),
    (_bounds("class", [0.0, 1.0]), "class: expected the bins of this release, 0, got 0, 1"),
    (lambda written: written.update(dataset_sha256="f" * 64), "is of the dataset ffff.*'s is 0000"),
]


@pytest.mark.parametrize(("change", "text"), CHANGES)
def test_a_wrong_reference_is_named(
    tiny: Bundle, tmp_path: Path, change: Change, text: str
) -> None:
    right = with_reference(tiny, tmp_path / "right", random_images(7, TINY_SHAPE))
    written = json.loads(right.read(DRIFT_REFERENCE_FILE))
    change(written)
    contents = {DRIFT_REFERENCE_FILE: json.dumps(written).encode()}
    wrong = republish(right, tmp_path / "wrong", contents)
    with pytest.raises(BundleError, match=f"{DRIFT_REFERENCE_FILE}: .*{text}"):
        read_reference(wrong)
    done = run_here(main, "verify", wrong.path, "--runtime", "onnx")
    assert done.returncode == 1
    assert re.search(f"drift reference: fails: .*{text}", done.stderr)
    assert "onnx: every stage of" in done.stdout, "the rest is checked all the same"


def test_a_large_reference_is_not_read(tiny: Bundle, tmp_path: Path) -> None:
    content = b" " * (MAX_REFERENCE_BYTES + 1)
    large = republish(tiny, tmp_path / "large", {DRIFT_REFERENCE_FILE: content})
    with pytest.raises(BundleError, match="expected at most 1000000 bytes, got 1000001"):
        read_reference(large)


@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "published without a drift reference"), (b"{}", "is no drift reference: ")],
)
def test_a_server_without_a_reference_says_so_once(
    tiny: Bundle, tmp_path: Path, content: bytes | None, reason: str
) -> None:
    contents = {} if content is None else {DRIFT_REFERENCE_FILE: content}
    republish(tiny, tmp_path / "served", contents)
    arguments = ("--models-dir", str(tmp_path / "served"), "--model", "tiny")
    with start_server(*arguments) as server:
        lines = [line for line in server.log() if line["event"] == "drift is not measured"]
    assert [reason in line["reason"] for line in lines] == [True]


def test_the_same_images_give_the_same_bytes() -> None:
    pixels, logits = random_images(9, TINY_SHAPE), random_images(9, (2,), seed=1)
    first, again = (write_reference(count_features([(pixels, logits)], 2, "")) for _ in range(2))
    assert first == again
