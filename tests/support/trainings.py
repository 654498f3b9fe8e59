"""Trainings made for a test: by the command, and in this process."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from export.bundle import open_bundle
from export.bundle.manifest import WEIGHTS_FILE
from export.network import Network
from tests.support.bundles import REPOSITORY
from tests.support.commands import run_here
from training.__main__ import main
from training.config import Recipe
from training.data import Data
from training.evaluate import evaluate, score
from training.history import Epoch
from training.results import TrainingResult
from training.trainer import Trainer, deterministic


def training_command(*arguments: str | Path) -> list[str | Path]:
    return [sys.executable, "-W", "error", "-m", "training", *arguments]


def train(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the command in this process."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # else the command sets it for good
        return run_here(main, *arguments)


def train_in_a_process(
    *arguments: str | Path, file_bytes: int | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command; `file_bytes` stands in for a full disk: a longer file can't be written."""
    command = training_command(*arguments)
    if file_bytes is not None:
        command = ["prlimit", f"--fsize={file_bytes}", *command]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)


def fitted(data: Data, **recipe: object) -> Trainer:
    """Train in this process; 16 units, 2 epochs and 32 images a step unless told.

    Most of a step's arithmetic is Muon's, on the weights of the first layer: units² · pixels.
    """
    settings = {"dataset": "digits", "hidden": (16,), "epochs": 2, "batch_images": 32, **recipe}
    trainer = Trainer(Recipe.model_validate(settings), data)
    with deterministic(trainer.recipe.threads):
        assert len(list(trainer.train())) == trainer.recipe.epochs
    return trainer


def epoch(number: int, loss: float, accuracy: float, dead_units: int = 0) -> Epoch:
    return Epoch(
        epoch=number,
        train_loss=loss,
        train_accuracy=accuracy,
        held_out_loss=loss,
        held_out_accuracy=accuracy,
        learning_rate=0.001,
        augmentation=1.0,
        gradient_norm=0.5,
        dead_units=dead_units,
        weight_norms={"linear1": 2.0},
        seconds=1.0,
    )


def run_of(
    network: Network, data: Data, epochs: Sequence[Epoch] = (), seed: int = 0
) -> TrainingResult:
    """Return a run that ended with this network."""
    return TrainingResult(
        recipe=Recipe(dataset="digits", epochs=1, seed=seed),
        epochs=tuple(epochs) or (epoch(1, 1.0, 0.5),),
        network=network,
        held_out=score(network, data.held_out),
        test=evaluate(network, data.test),
    )


def weights_hash(models_dir: Path, version: int) -> str:
    manifest = open_bundle(models_dir / "digits" / str(version)).manifest
    return next(file.sha256 for file in manifest.files if file.name == WEIGHTS_FILE)


def parameters_of(trainer: Trainer) -> torch.Tensor:
    """Return the published weights, all in one vector."""
    return torch.cat([parameter.detach().flatten() for parameter in trainer.average.parameters()])
