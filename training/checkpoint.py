"""Checkpoints: a resumed training ends with the same weights as an uninterrupted one."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from training.config import Recipe
from training.data import Data
from training.errors import CheckpointError
from training.history import Epoch
from training.trainer import Trainer


class Checkpoint:
    """The file that holds a training's state after its last whole epoch.

    It is stored beside the bundles as `.checkpoint-<seed>`, without pickle, and is
    replaced in one step: a reader sees the whole state of one epoch.
    """

    def __init__(self, models_dir: Path, recipe: Recipe, data: Data) -> None:
        self.recipe = recipe
        self.path = models_dir / recipe.dataset / f".checkpoint-{recipe.seed}"
        # A difference in any of these leads to other weights.
        self._identity = {
            **recipe.model_dump(mode="json"),
            "dataset SHA-256": data.sha256,
            "torch": torch.__version__,
        }

    @contextmanager
    def held(self) -> Iterator[None]:
        """Lock the checkpoint while the block runs.

        Raises:
            CheckpointError: another training has locked it.
            OSError: the folder can't be written.
        """
        path = self.path.with_name(f"{self.path.name}.lock")
        with _locked(path) as is_ours:
            if not is_ours:
                raise CheckpointError(
                    f"{self.path}: another training with seed {self.recipe.seed} writes it now: "
                    "wait for its end, or take another --seed or --models-dir"
                )
            try:
                yield
            finally:
                path.unlink(missing_ok=True)

    def exists(self) -> bool:
        """Tell whether there is a training to continue."""
        return self.path.exists()

    def save(self, trainer: Trainer) -> None:
        """Save the state of the training; it replaces an older one.

        Raises:
            CheckpointError: it can't be written; the older one is kept.
        """
        tensors = {name: value.cpu().contiguous() for name, value in trainer.state().items()}
        metadata = {
            "identity": json.dumps(self._identity),
            "epochs": json.dumps([asdict(epoch) for epoch in trainer.epochs]),
        }
        temporary = self.path.with_name(f"{self.path.name}.new")
        try:
            temporary.write_bytes(save(tensors, metadata))
            temporary.replace(self.path)
        except OSError as error:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise CheckpointError(
                f"{self.path}: can't be written: {error.strerror}; the training stopped, nothing "
                "was published. Fix this, then rerun with --resume: it continues after the epoch "
                "that was saved"
            ) from error

    def restore(self, trainer: Trainer) -> None:
        """Set a training to the saved state.

        Raises:
            CheckpointError: it can't be read, or is of other settings, data or torch.
        """
        try:
            with safe_open(self.path, framework="pt") as file:
                metadata = file.metadata()
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
            identity = json.loads(metadata["identity"])
            epochs = [Epoch(**epoch) for epoch in json.loads(metadata["epochs"])]
        except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(
                f"{self.path}: can't be read ({error}); leave out --resume to start anew"
            ) from error
        if differences := [
            f"{name} {identity.get(name)!r} then, {value!r} now"
            for name, value in self._identity.items()
            if identity.get(name) != value
        ]:
            raise CheckpointError(
                f"{self.path}: belongs to another training: {'; '.join(differences)}. "
                "Give the same settings, or leave out --resume to start anew"
            )
        trainer.restore(tensors, epochs)

    def remove(self) -> None:
        """Remove the file, if there is one."""
        self.path.unlink(missing_ok=True)


@contextmanager
def _locked(path: Path) -> Iterator[bool]:
    """Lock a file made for it while the block runs; yield False if another process has it.

    The kernel unlocks it when the process ends, also when it is killed.
    """
    with path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        except OSError:  # a file system without locks
            yield True
            return
        # The former owner may remove it between the two steps; then another may lock a new one.
        yield path.exists() and os.path.samestat(path.stat(), os.fstat(file.fileno()))
