"""Publish a trained network: write the files, compare their runtimes, list them, rename."""

import importlib.metadata
import platform
from collections.abc import Mapping, Sequence
from contextlib import suppress
from math import prod
from pathlib import Path

import numpy as np
import torch

from export.architecture import Stage
from export.bundle import Bundle, open_bundle
from export.bundle.manifest import (
    DRIFT_REFERENCE_FILE,
    HISTORY_FILE,
    SNAPSHOTS_FILE,
    TEST_IMAGES,
    Dataset,
    Manifest,
    RuntimeParity,
)
from export.bundle.publishing import staged_bundle, write_files, write_manifest
from export.bundle.reference import write_reference
from export.bundle.snapshots import Snapshots, write_snapshots
from export.errors import ParityError
from export.network import weights_of
from export.parity.compare import ImageSet, compare, synthetic_images, variants_of
from export.writers import write_all
from training.card import model_card
from training.config import Recipe
from training.data import Data
from training.history import history_lines
from training.pictures import evaluation_picture, history_picture, weights_picture
from training.reference import reference_of
from training.results import TrainingResult

CARD_FILE = "MODEL_CARD.md"
# onnxruntime-gpu takes the place of onnxruntime where a GPU computes.
PACKAGES = (
    "torch",
    "torchvision",
    "onnx",
    "onnxruntime",
    "onnxruntime-gpu",
    "numpy",
    "safetensors",
)


def publish(
    models_dir: Path, best: TrainingResult, results: Sequence[TrainingResult], data: Data
) -> Bundle:
    """Write the best of the results as the next version of the model `data.name`.

    The bundle appears under its version only after every runtime was compared, on all
    test images, and holds.

    Raises:
        ParityError: a written runtime diverges from the weights; nothing is published.
        OSError: the folder can't be written; nothing is published.
    """
    weights = weights_of(best.network)
    with staged_bundle(models_dir, data.name) as (folder, version):
        manifest = _manifest(best, data, version)
        contents = write_all(best.network.stages, weights, manifest.input_min, manifest.input_max)
        contents |= _records(best, data, f"{data.name}, version {version}, seed {best.recipe.seed}")
        files = write_files(folder, contents)
        written = Bundle(folder, manifest.model_copy(update={"files": files}))
        manifest = manifest.model_copy(update={"parity": _compare(written, weights, data)})
        last = {
            CARD_FILE: model_card(manifest, best, results).encode(),
            DRIFT_REFERENCE_FILE: write_reference(reference_of(written, data)),
        }
        files += write_files(folder, last)
        by_name = tuple(sorted(files, key=lambda file: file.name))
        bundle = write_manifest(folder, manifest.model_copy(update={"files": by_name}))
        bundle.verify_files()
    return open_bundle(models_dir / data.name / str(version))


def _records(result: TrainingResult, data: Data, title: str) -> dict[str, bytes]:
    """Return the files about the training, by name."""
    weights = [
        value for name, value in weights_of(result.network).items() if name.endswith("weight")
    ]
    first, second = (torch.from_numpy(weight) for weight in weights[:2])
    return {
        "recipe.toml": result.recipe.toml().encode(),
        HISTORY_FILE: history_lines(result.epochs),
        "history.png": history_picture(result.epochs, result.test, data.test, data.labels, title),
        "evaluation.png": evaluation_picture(result.test, f"{title}: test images"),
        "weights.png": weights_picture(first, second, data.labels),
        **snapshot_files(result),
    }


def snapshot_files(result: TrainingResult) -> dict[str, bytes]:
    """Return the file of the snapshots, none without that of the last epoch, which is served."""
    served = result.epochs[-1].epoch
    if served not in result.snapshots:
        return {}
    return {SNAPSHOTS_FILE: write_snapshots(Snapshots(result.snapshots, served))}


def _compare(
    bundle: Bundle, weights: Mapping[str, np.ndarray], data: Data
) -> tuple[RuntimeParity, ...]:
    """Compare every runtime that this machine has; return the figures.

    Raises:
        ParityError: a runtime diverges from the weights.
    """
    test = ImageSet(TEST_IMAGES, data.test.pixels().numpy())
    records: list[RuntimeParity] = []
    for images in (test, synthetic_images(bundle.manifest, weights)):
        report = compare(bundle, weights, images, variants_of())
        for one in report.comparisons:
            if divergence := one.divergence:
                raise ParityError(f"{one.name}: {divergence}")
        records += report.records()
    return tuple(records)


def _manifest(result: TrainingResult, data: Data, version: int) -> Manifest:
    stages = result.network.stages
    return Manifest(
        name=data.name,
        version=version,
        architecture=_architecture(stages),
        stages=stages,
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
        seed=result.recipe.seed,
        metrics={
            "test_accuracy": result.test.accuracy,
            "test_loss": result.test.loss,
            "test_calibration_error": result.test.calibration_error,
            "held_out_accuracy": result.held_out.accuracy,
            "held_out_loss": result.held_out.loss,
            "train_loss": result.epochs[-1].train_loss,
        },
        parity=(),
        tools=_tools(),
        hardware=_hardware(result.recipe),
    )


def _tools() -> dict[str, str]:
    """Return the versions of Python and of the packages that are installed."""
    tools = {"python": platform.python_version()}
    for package in PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            tools[package] = importlib.metadata.version(package)
    return tools


def _hardware(recipe: Recipe) -> dict[str, str]:
    hardware = {
        "machine": platform.machine(),
        "processor": _processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
    }
    if recipe.device == "cuda":
        hardware["gpu"] = torch.cuda.get_device_name()
    return hardware


def _processor() -> str:
    """Return the name of the processor from Linux, or else what Python knows."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _architecture(stages: Sequence[Stage]) -> str:
    sizes = [prod(stages[0].shape), *(s.size for s in stages if s.operation == "Linear")]
    return f"MLP {'-'.join(map(str, sizes))}"
