"""Publish a trained network: write, reopen, compare, hash, rename."""

import importlib.metadata
import platform
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path

import numpy as np
import torch

from export.architecture import Stage
from export.bundle import Bundle, open_bundle
from export.bundle.manifest import TEST_IMAGES, Dataset, Manifest, RuntimeParity
from export.bundle.publishing import staged_bundle, write_bundle
from export.errors import ParityError
from export.network import weights_of
from export.parity.compare import ImageSet, compare, synthetic_images, variants_of
from export.writers import write_all
from training.card import model_card
from training.config import Recipe
from training.data import Data
from training.history import history_lines
from training.pictures import evaluation_picture, history_picture, weights_picture
from training.seeds import TrainingResult, best_run

PACKAGES = ("torch", "torchvision", "onnx", "onnxruntime", "numpy", "safetensors")


def publish(models_dir: Path, runs: Sequence[TrainingResult], data: Data) -> Bundle:
    """Write the best run as the next version of the model `data.name`; return the bundle.

    The parity of every runtime, on all test images, decides: a bundle appears
    under its version only after it holds.

    Raises:
        ParityError: a written runtime diverges from the weights; nothing is published.
        OSError: the folder can't be written; nothing is published.
    """
    run = best_run(runs)
    weights = weights_of(run.network)
    with staged_bundle(models_dir, data.name) as (folder, version):
        manifest = _manifest(run, data, version)
        contents = write_all(run.network.stages, weights, manifest.input_min, manifest.input_max)
        contents |= _records(run, data, f"{data.name}, version {version}, seed {run.recipe.seed}")
        parity = _prove(write_bundle(folder, manifest, contents), weights, data)
        manifest = manifest.model_copy(update={"parity": parity})
        contents["MODEL_CARD.md"] = model_card(manifest, run, runs).encode()
        write_bundle(folder, manifest, contents).verify_files()
    return open_bundle(models_dir / data.name / str(version))


def _records(run: TrainingResult, data: Data, title: str) -> dict[str, bytes]:
    """Return what a person reads of the training, by the file's name."""
    weights = [value for name, value in weights_of(run.network).items() if name.endswith("weight")]
    first, second = (torch.from_numpy(weight) for weight in weights[:2])
    return {
        "recipe.toml": run.recipe.toml().encode(),
        "history.jsonl": history_lines(run.epochs),
        "history.png": history_picture(run.epochs, run.test, data.test, data.labels, title),
        "evaluation.png": evaluation_picture(run.test, f"{title}: test images"),
        "weights.png": weights_picture(first, second, data.labels),
    }


def _prove(
    bundle: Bundle, weights: Mapping[str, np.ndarray], data: Data
) -> tuple[RuntimeParity, ...]:
    """Compare every runtime at hand; return the figures.

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


def _manifest(run: TrainingResult, data: Data, version: int) -> Manifest:
    stages = run.network.stages
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
        seed=run.recipe.seed,
        metrics={
            "test_accuracy": run.test.accuracy,
            "test_loss": run.test.loss,
            "test_calibration_error": run.test.calibration_error,
            "held_out_accuracy": run.held_out.accuracy,
            "held_out_loss": run.held_out.loss,
            "train_loss": run.epochs[-1].train_loss,
        },
        parity=(),
        tools={
            "python": platform.python_version(),
            **{package: importlib.metadata.version(package) for package in PACKAGES},
        },
        hardware=_hardware(run.recipe),
    )


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
    """Return the processor's own name, which only Linux tells, or what Python knows."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _architecture(stages: Sequence[Stage]) -> str:
    sizes = [prod(stages[0].shape), *(s.size for s in stages if s.operation == "Linear")]
    return f"MLP {'-'.join(map(str, sizes))}"
