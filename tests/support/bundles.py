"""Bundles made for a test."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from export.architecture import Precision, Stage, mlp
from export.bundle import Bundle, open_bundle
from export.bundle.manifest import Dataset, Manifest
from export.bundle.publishing import staged_bundle, write_bundle
from export.network import Network, weights_of
from export.parity.bounds import Reference, bounded
from export.runtimes.numpy import NumpyRunner
from export.writers import write_all

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
    """Publish the next version of a small network with random weights, without parity."""
    network = Network(mlp(shape, hidden, len(labels)))
    with staged_bundle(models_dir, name) as (folder, version):
        manifest = Manifest(
            name=name,
            version=version,
            architecture="MLP",
            stages=network.stages,
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
        write_bundle(folder, manifest, write_all(network.stages, weights_of(network), 0, 1))
    return open_bundle(models_dir / name / str(version))


def republish(bundle: Bundle, models_dir: Path, contents: Mapping[str, bytes]) -> Bundle:
    """Return a copy of the bundle with other contents, whose hashes are right."""
    manifest = bundle.manifest
    folder = models_dir / manifest.name / str(manifest.version)
    folder.mkdir(parents=True)
    kept = {file.name: bundle.read(file.name) for file in manifest.files}
    return write_bundle(folder, manifest, {**kept, **contents})


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
