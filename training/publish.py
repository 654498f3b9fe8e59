"""Publish a trained network: write, reopen, compare, hash, rename."""

import importlib.metadata
import platform
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path

import numpy as np

from export.architecture import Stage
from export.bundle import Bundle, open_bundle, staged_bundle, write_bundle
from export.compare import ImageSet, compare, synthetic_images, variants_of
from export.errors import ParityError
from export.manifest import TEST_IMAGES, Dataset, Manifest, RuntimeParity
from export.network import Network, weights_of
from export.writers import write_all
from training.card import model_card
from training.data import Data
from training.fit import Epoch, accuracy
from training.record import history_lines, history_plot

PACKAGES = ("torch", "torchvision", "onnx", "onnxruntime", "numpy", "safetensors")


def publish(
    models_dir: Path, network: Network, data: Data, epochs: Sequence[Epoch], seed: int
) -> Bundle:
    """Write the next version of the model `data.name`; return the published bundle.

    The parity of every runtime, on all test images, decides: a bundle appears
    under its version only after it holds.

    Raises:
        ParityError: a written runtime departs from the weights; nothing is published.
        OSError: the folder can't be written; nothing is published.
    """
    weights = weights_of(network)
    with staged_bundle(models_dir, data.name) as (folder, version):
        manifest = _manifest(network, data, epochs, seed, version)
        contents = write_all(network.stages, weights, manifest.input_min, manifest.input_max)
        contents["history.jsonl"] = history_lines(epochs)
        contents["history.png"] = history_plot(epochs, f"{data.name}, version {version}")
        parity = _prove(write_bundle(folder, manifest, contents), weights, data)
        manifest = manifest.model_copy(update={"parity": parity})
        contents["MODEL_CARD.md"] = model_card(manifest, epochs).encode()
        write_bundle(folder, manifest, contents).verify_files()
    return open_bundle(models_dir / data.name / str(version))


def _prove(
    bundle: Bundle, weights: Mapping[str, np.ndarray], data: Data
) -> tuple[RuntimeParity, ...]:
    """Compare every runtime at hand; return the figures.

    Raises:
        ParityError: a runtime departs from the weights.
    """
    test = ImageSet(TEST_IMAGES, data.test.pixels().numpy())
    records: list[RuntimeParity] = []
    for images in (test, synthetic_images(bundle.manifest, weights)):
        report = compare(bundle, weights, images, variants_of())
        for one in report.comparisons:
            if fault := one.departure:
                raise ParityError(f"{one.name}: {fault}")
        records += report.records()
    return tuple(records)


def _manifest(
    network: Network, data: Data, epochs: Sequence[Epoch], seed: int, version: int
) -> Manifest:
    return Manifest(
        name=data.name,
        version=version,
        architecture=_architecture(network.stages),
        stages=network.stages,
        input_min=0.0,
        input_max=1.0,
        labels=data.labels,
        files=(),
        dataset=Dataset(
            name=data.name,
            sha256=data.sha256,
            train_images=len(data.train),
            held_out_images=len(data.held_out),
            test_images=len(data.test),
        ),
        seed=seed,
        metrics={
            "test_accuracy": accuracy(network, data.test),
            "held_out_accuracy": accuracy(network, data.held_out),
            "train_loss": epochs[-1].loss,
        },
        parity=(),
        tools={
            "python": platform.python_version(),
            **{package: importlib.metadata.version(package) for package in PACKAGES},
        },
    )


def _architecture(stages: Sequence[Stage]) -> str:
    sizes = [prod(stages[0].shape), *(s.size for s in stages if s.operation == "Linear")]
    return f"MLP {'-'.join(map(str, sizes))}"
