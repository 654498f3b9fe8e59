"""Bundles made for a test."""

import functools
import io
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from export.architecture import Precision, Stage, mlp
from export.bundle import Bundle, open_bundle
from export.bundle.manifest import (
    DRIFT_REFERENCE_FILE,
    HISTORY_FILE,
    SNAPSHOTS_FILE,
    VECTORS_FILE,
    Dataset,
    Manifest,
)
from export.bundle.publishing import staged_bundle, write_bundle, write_manifest
from export.bundle.reference import count_features, write_reference
from export.bundle.snapshots import Snapshots, half_precision, write_snapshots
from export.bundle.weights import read_weights
from export.parity.bounds import Reference, bounded
from export.runtimes import open_runner
from export.runtimes.numpy import NumpyRunner

REPOSITORY = Path(__file__).parent.parent.parent
MODELS_DIR = REPOSITORY / "models"
TINY_SHAPE, TINY_HIDDEN, TINY_LABELS = (3, 5), 4, ("cat", "dog")


def publish_random_bundle(
    models_dir: Path,
    name: str,
    shape: tuple[int, int] = TINY_SHAPE,
    labels: tuple[str, ...] = TINY_LABELS,
    hidden: Sequence[int] = (TINY_HIDDEN,),
) -> Bundle:
    """Publish the next version of a small network with random weights, without parity.

    Each version has weights of its own, the same in every folder.
    """
    stages = mlp(shape, hidden, len(labels))
    with staged_bundle(models_dir, name) as (folder, version):
        manifest = Manifest(
            name=name,
            version=version,
            architecture="MLP",
            stages=stages,
            input_min=0,
            input_max=1,
            labels=labels,
            files=(),
            dataset=Dataset(
                name="random",
                sha256="0" * 64,
                train_images=1,
                held_out_images=1,
                test_images=1,
            ),
            seed=0,
            metrics={},
            parity=(),
            tools={},
        )
        contents = _written(shape, tuple(hidden), len(labels), version)
        write_bundle(folder, manifest, contents)
    return open_bundle(models_dir / name / str(version))


@functools.cache  # torch takes half a second to write them
def _written(
    shape: tuple[int, int], hidden: tuple[int, ...], classes: int, version: int
) -> Mapping[str, bytes]:
    """Return the model files of random weights, a version's own."""
    # Not above: conftest.py imports this module, in processes that need no torch, too.
    import torch  # noqa: PLC0415

    from export.network import Network, weights_of  # noqa: PLC0415
    from export.writers import write_all  # noqa: PLC0415

    stages = mlp(shape, hidden, classes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(version)
        weights = weights_of(Network(stages))
    return write_all(stages, weights, 0, 1)


def republish(bundle: Bundle, models_dir: Path, contents: Mapping[str, bytes]) -> Bundle:
    """Return a copy of the bundle with other contents, whose hashes are right."""
    manifest = bundle.manifest
    folder = models_dir / manifest.name / str(manifest.version)
    folder.mkdir(parents=True)
    kept = {file.name: bundle.read(file.name) for file in manifest.files}
    return write_bundle(folder, manifest, {**kept, **contents})


def publish_copy(bundle: Bundle, folder: Path, version: int, *, told: int) -> None:
    """Copy a bundle into the folder of a model, as a version; its manifest tells one, too."""
    beside = folder / f".{version}"
    shutil.copytree(bundle.path, beside)
    write_manifest(beside, bundle.manifest.model_copy(update={"version": told}))
    beside.rename(folder / str(version))


def near_its_bound(bundle: Bundle, models_dir: Path) -> Bundle:
    """Return a copy whose logits, computed here, are off by 0.9 of the bounds in its vectors."""
    with np.load(io.BytesIO(bundle.read(VECTORS_FILE))) as stored:
        arrays = dict(stored)
    output = bundle.manifest.stages[-1].name
    exact = arrays[f"value/{output}"]
    errors = np.abs(open_runner(bundle, "onnx", "cpu").predict(arrays["images"]) - exact)
    arrays[f"bound/{output}"] = np.full_like(exact, errors.max() / 0.9)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return republish(bundle, models_dir, {VECTORS_FILE: buffer.getvalue()})


def reference_of(
    stages: Sequence[Stage],
    weights: Mapping[str, np.ndarray],
    images: np.ndarray,
    precision: Precision = "float32",
) -> Reference:
    """Return the oracle's outputs of images [N, H, W], and their bounds."""
    return bounded(stages, weights, NumpyRunner(stages, weights).trace(images), precision)


def random_images(count: int, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Return seeded random images, float32 [count, *shape] in 0..1."""
    return np.random.default_rng(seed).random((count, *shape), np.float32)


def history_of(epochs: int) -> bytes:
    """Return `history.jsonl` of a training with made-up figures."""
    lines = [
        {
            "epoch": epoch,
            "train_loss": 2 / epoch,
            "train_accuracy": 1 - 1 / (epoch + 1),
            "held_out_loss": 3 / epoch,
            "held_out_accuracy": 1 - 1 / (epoch + 2),
            "learning_rate": epoch / 8,
            "seconds": 0.25 * epoch,
            "observation": f"epoch {epoch}: läuft",
            "dead_units": 0,
        }
        for epoch in range(1, epochs + 1)
    ]
    return "".join(f"{json.dumps(line)}\n" for line in lines).encode()


def snapshots_of(
    weights: Mapping[str, np.ndarray], kept: Sequence[int], served_epoch: int
) -> Snapshots:
    """Return made-up snapshots of epochs, of which the served one has the weights, rounded."""
    return Snapshots(
        {
            epoch: half_precision(
                {name: array * np.float32(epoch / served_epoch) for name, array in weights.items()}
            )
            for epoch in kept
        },
        served_epoch,
    )


def with_record(
    bundle: Bundle, models_dir: Path, *, epochs: int = 9, kept: Sequence[int] = (0, 1, 3, 9)
) -> Bundle:
    """Return a copy of the bundle with the record of a training, which ended after `epochs`."""
    snapshots = snapshots_of(read_weights(bundle), kept, epochs)
    record = {HISTORY_FILE: history_of(epochs), SNAPSHOTS_FILE: write_snapshots(snapshots)}
    return republish(bundle, models_dir, record)


def with_reference(bundle: Bundle, models_dir: Path, images: np.ndarray) -> Bundle:
    """Return a copy of the bundle with the drift reference of these images, FLOAT32 [N, H, W]."""
    logits = open_runner(bundle, "onnx", "cpu").predict(images)
    manifest = bundle.manifest
    reference = count_features([(images, logits)], len(manifest.labels), manifest.dataset.sha256)
    return republish(bundle, models_dir, {DRIFT_REFERENCE_FILE: write_reference(reference)})
