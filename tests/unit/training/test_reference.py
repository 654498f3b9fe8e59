"""The drift reference that training publishes, and that is added to a bundle without one."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from export.architecture import mlp
from export.bundle import Bundle, open_bundle
from export.bundle.manifest import DRIFT_REFERENCE_FILE
from export.bundle.publishing import write_manifest
from export.bundle.reference import count_features, read_reference
from export.network import Network
from export.runtimes import open_runner
from tests.support.trainings import run_of, train
from training.data import load
from training.publish import publish

if TYPE_CHECKING:
    from training.data import Data


@pytest.fixture
def published(tmp_path: Path) -> Bundle:
    """A network for the digits that learned nothing."""
    data = load("digits", Path(), None)
    result = run_of(Network(mlp((28, 28), [16], 10)), data)
    return publish(tmp_path / "models", result, [result], data)


def without_reference(bundle: Bundle) -> Bundle:
    """Take the reference out of a bundle, as if an earlier release had published it."""
    (bundle.path / DRIFT_REFERENCE_FILE).unlink()
    files = tuple(file for file in bundle.manifest.files if file.name != DRIFT_REFERENCE_FILE)
    return write_manifest(bundle.path, bundle.manifest.model_copy(update={"files": files}))


def contents(bundle: Bundle) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in bundle.path.iterdir()}


def test_a_published_bundle_has_its_training_images(published: Bundle) -> None:
    data = load("digits", Path(), None)
    pixels = data.train.images.numpy() / np.float32(255)
    logits = open_runner(published, "onnx", "cpu").predict(pixels)
    reference = read_reference(published)
    assert reference is not None
    assert reference.images == len(data.train) == published.manifest.dataset.train_images
    counted = count_features([(pixels, logits)], 10, data.sha256)
    for feature, histogram in counted.histograms.items():
        found = np.array(reference.histograms[feature].counts)
        assert np.abs(found - histogram.counts).sum() <= 4, "a rounding at a bound"


def test_an_added_reference_is_what_training_publishes(published: Bundle) -> None:
    before = contents(published)
    earlier = without_reference(published)
    assert read_reference(earlier) is None
    for _ in range(2):  # the second renews it
        done = train("--add-reference", published.path)
        assert done.returncode == 0, done.stderr
        assert "drift_reference.json of 1,372 training images" in done.stdout
        assert contents(published) == before


def test_other_images_are_no_reference(published: Bundle) -> None:
    dataset = published.manifest.dataset.model_copy(update={"sha256": "f" * 64})
    write_manifest(published.path, published.manifest.model_copy(update={"dataset": dataset}))
    before = contents(published)
    done = train("--add-reference", published.path)
    assert done.returncode == 1
    assert f"was trained on the digits with SHA-256 {'f' * 64}, the one here has " in done.stderr
    assert contents(published) == before


def test_an_unknown_dataset_has_no_reference(tiny: Bundle) -> None:
    done = train("--add-reference", tiny.path)
    assert done.returncode == 1
    assert "was trained on 'random'; expected one of mnist, fashion-mnist, digits" in done.stderr


def test_a_damaged_bundle_gets_no_reference(published: Bundle) -> None:
    (published.path / "model.onnx").write_bytes(b"")
    done = train("--add-reference", published.path)
    assert done.returncode == 1
    assert "model.onnx: the manifest says" in done.stderr


def test_the_bundled_reference_is_made_by_the_command(
    bundle: Bundle, mnist: "Data", tmp_path: Path
) -> None:
    assert mnist.sha256 == bundle.manifest.dataset.sha256
    copied = shutil.copytree(bundle.path, tmp_path / "1")
    without_reference(open_bundle(copied))
    done = train("--add-reference", copied)
    assert done.returncode == 0, done.stderr
    added, own = read_reference(open_bundle(copied)), read_reference(bundle)
    assert added is not None
    assert own is not None
    for feature, histogram in own.histograms.items():
        found = np.array(added.histograms[feature].counts)
        assert np.abs(found - histogram.counts).sum() <= 4, "a rounding at a bound"
