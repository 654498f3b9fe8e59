"""Publish a trained network: write, reopen, compare, hash, rename."""

import importlib.metadata
import platform
from collections.abc import Sequence
from math import prod
from pathlib import Path

from export.architecture import Stage
from export.bundle import Bundle, describe, open_bundle, staged_bundle
from export.manifest import MANIFEST_NAME, Dataset, Manifest
from export.network import Network, weights_of
from export.verify import verify_parity
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
    with staged_bundle(models_dir, data.name) as (folder, version):
        contents = write_all(network.stages, weights_of(network))
        contents["history.jsonl"] = history_lines(epochs)
        contents["history.png"] = history_plot(epochs, f"{data.name}, version {version}")
        manifest = _manifest(network, data, epochs, seed, version)
        _write(folder, manifest, contents)
        parity = verify_parity(open_bundle(folder), data.test.pixels().numpy())
        manifest = manifest.model_copy(update={"parity": tuple(parity)})
        contents["MODEL_CARD.md"] = model_card(manifest, epochs).encode()
        _write(folder, manifest, contents)
        open_bundle(folder).verify_files()
    return open_bundle(models_dir / data.name / str(version))


def _write(folder: Path, manifest: Manifest, contents: dict[str, bytes]) -> None:
    files = tuple(describe(name, content) for name, content in sorted(contents.items()))
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    text = manifest.model_copy(update={"files": files}).model_dump_json(indent=2)
    (folder / MANIFEST_NAME).write_text(f"{text}\n", encoding="utf-8")


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
