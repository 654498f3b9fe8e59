"""Train the network, an epoch at a time; the same recipe gives the same bits."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import get_total_norm

from export.architecture import mlp
from export.bundle.snapshots import most_snapshots
from export.network import weights_of
from training.augment import distort
from training.config import Recipe
from training.data import IMAGE_SIDE, Data
from training.history import Epoch
from training.metrics import accuracy
from training.model import NormalisedNetwork
from training.muon import Muon
from training.schedule import Schedule
from training.snapshots import kept_epochs, snapshot_of

MOMENTUM = 0.9  # Nesterov's
BIAS_LEARNING_RATE = 2e-3  # peak


@contextmanager
def deterministic(threads: int) -> Iterator[None]:
    """Compute with so many threads, the same bits every time, while the block runs."""
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(mode=True)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(mode=before[1])


@dataclass(frozen=True)
class EpochTotals:
    """Sums over an epoch, tensors on the device: only its end waits for them."""

    loss: torch.Tensor
    right: torch.Tensor
    gradient_norm: torch.Tensor

    @classmethod
    def zeros(cls, device: str) -> Self:
        """Return the totals of no step."""
        return cls(*torch.zeros(3, device=device).unbind())


class HeldOutFigures(NamedTuple):
    """What the averaged weights do on the held-out images."""

    loss: float
    accuracy: float
    dead_units: int


class Trainer:
    """Muon with warm-up and cosine decay, on distorted images, with averaged weights.

    Muon (Jordan et al. 2024) steps along the momentum of each weight matrix with its
    singular values all brought near 1; the biases, no matrices, take AdamW.
    `average` has the averaged weights: those that are evaluated and published.
    """

    def __init__(self, recipe: Recipe, data: Data) -> None:
        self.recipe = recipe
        self.epochs: list[Epoch] = []  # the finished ones
        self._train, self._held_out = data.train.to(recipe.device), data.held_out.to(recipe.device)
        self._pixels = self._train.pixels()
        # One generator for every random choice, on the CPU also if the device is a GPU.
        self._generator = torch.Generator().manual_seed(recipe.seed)
        stages = mlp((IMAGE_SIDE, IMAGE_SIDE), recipe.hidden, len(data.labels))
        self._model, self.average = (
            NormalisedNetwork(stages, *data.train.mean_and_deviation()).to(recipe.device)
            for _ in range(2)
        )
        self._initialise()
        weights = [one for one in self._model.parameters() if one.dim() == 2]
        biases = [one for one in self._model.parameters() if one.dim() == 1]
        # Each with its peak learning rate.
        self._optimizers: dict[torch.optim.Optimizer, float] = {
            Muon(weights, momentum=MOMENTUM, weight_decay=recipe.weight_decay): (
                recipe.learning_rate
            ),
            torch.optim.AdamW(biases, weight_decay=0, fused=True): BIAS_LEARNING_RATE,
        }
        self.steps_per_epoch = math.ceil(len(self._train) / recipe.batch_images)
        self._schedule = Schedule(
            steps=recipe.epochs * self.steps_per_epoch,
            augmentation_start=recipe.augmentation,
            augmentation_end=recipe.augmentation_end,
        )
        self._step = 0  # steps that are done
        self._kept_epochs = kept_epochs(recipe.epochs, most_snapshots(stages))
        # By epoch, ascending: the published weights as they were then, float16 by name.
        self.snapshots: dict[int, dict[str, np.ndarray]] = {}
        self._keep_snapshot()

    @torch.no_grad()
    def _initialise(self) -> None:
        """Draw uniformly from ±1/sqrt(inputs), as torch's Linear does, with our generator."""
        for layer in self._model.modules():
            if isinstance(layer, nn.Linear):
                limit = 1 / math.sqrt(layer.in_features)
                for parameter in (layer.weight, layer.bias):
                    drawn = torch.rand(parameter.shape, generator=self._generator)
                    parameter.copy_((drawn * 2 - 1) * limit)
        self.average.load_state_dict(self._model.state_dict())

    def train(self, on_step: Callable[[], None] = lambda: None) -> Iterator[Epoch]:
        """Train the epochs that are left; yield the record of each.

        `on_step` is called after every step.
        """
        while len(self.epochs) < self.recipe.epochs:
            started = time.perf_counter()
            totals = EpochTotals.zeros(self.recipe.device)
            for indices in self._batches():
                self._set_learning_rates(self._schedule.learning_rate_share(self._step))
                strength = self._schedule.augmentation(self._step)
                # No variable holds the images: the next batch reuses their memory.
                self._optimize(
                    distort(self._pixels[indices], self._generator, strength),
                    self._train.labels[indices],
                    totals,
                )
                self._update_average()
                on_step()
            held_out = self._evaluate_held_out()
            self.epochs.append(self._record(totals, held_out, started))
            self._keep_snapshot()
            yield self.epochs[-1]

    def _batches(self) -> Iterable[torch.Tensor]:
        """Return the indices of all training images in a new order, a batch at a time."""
        order = torch.randperm(len(self._train), generator=self._generator)
        return order.to(self.recipe.device).split(self.recipe.batch_images)

    def _set_learning_rates(self, share: float) -> None:
        for optimizer, peak in self._optimizers.items():
            optimizer.param_groups[0]["lr"] = peak * share

    def _optimize(self, images: torch.Tensor, labels: torch.Tensor, totals: EpochTotals) -> None:
        """Take one step on a batch, images [N, H, W] and labels [N]; add to the totals."""
        logits = self._model(images)
        loss = functional.cross_entropy(logits, labels)
        self._model.zero_grad(set_to_none=True)
        loss.backward()
        for optimizer in self._optimizers:
            optimizer.step()
        self._step += 1
        gradients = [p.grad for p in self._model.parameters() if p.grad is not None]
        totals.loss.add_(loss.detach(), alpha=len(labels))
        totals.right.add_((logits.detach().argmax(dim=1) == labels).sum())
        totals.gradient_norm.add_(get_total_norm(gradients))

    @torch.no_grad()
    def _update_average(self) -> None:
        # Early weights count for little: the decay grows to its limit over the first steps.
        decay = min(self.recipe.average_decay, self._step / (self._step + 10))
        for averaged, now in zip(self.average.parameters(), self._model.parameters(), strict=True):
            averaged.lerp_(now, 1 - decay)

    def _keep_snapshot(self) -> None:
        """Keep the averaged weights after the last epoch, if it is one to keep."""
        epoch = len(self.epochs)
        if epoch in self._kept_epochs:
            snapshot = snapshot_of(weights_of(self.average.folded()))
            if snapshot is not None:
                self.snapshots[epoch] = snapshot

    def _record(self, totals: EpochTotals, held_out: HeldOutFigures, started: float) -> Epoch:
        weights = {
            name.removesuffix(".weight").removeprefix("network.layers."): parameter
            for name, parameter in self.average.named_parameters()
            if name.endswith(".weight")
        }
        rate = next(iter(self._optimizers)).param_groups[0]["lr"]
        return Epoch(
            epoch=len(self.epochs) + 1,
            train_loss=totals.loss.item() / len(self._train),
            train_accuracy=totals.right.item() / len(self._train),
            held_out_loss=held_out.loss,
            held_out_accuracy=held_out.accuracy,
            learning_rate=float(rate),
            augmentation=self._schedule.augmentation(self._step),
            gradient_norm=totals.gradient_norm.item() / self.steps_per_epoch,
            dead_units=held_out.dead_units,
            weight_norms={name: weight.norm().item() for name, weight in weights.items()},
            seconds=time.perf_counter() - started,
        )

    @torch.no_grad()
    def _evaluate_held_out(self) -> HeldOutFigures:
        traced = self.average.trace(self._held_out.pixels())
        logits = list(traced.values())[-1]
        loss = functional.cross_entropy(logits, self._held_out.labels).item()
        dead = sum(
            int((traced[stage.name].amax(dim=0) == 0).sum())
            for stage in self.average.network.stages
            if stage.operation == "ReLU"
        )
        return HeldOutFigures(loss, accuracy(logits, self._held_out.labels), dead)

    def state(self) -> dict[str, torch.Tensor]:
        """Return the tensors that, with the epochs' records, continue the training."""
        tensors = {"generator": self._generator.get_state()}
        for part, module in (("model", self._model), ("average", self.average)):
            tensors |= {f"{part}/{name}": value for name, value in module.state_dict().items()}
        for number, optimizer in enumerate(self._optimizers):
            for index, moments in optimizer.state_dict()["state"].items():
                tensors |= {f"optimizer{number}/{index}/{name}": v for name, v in moments.items()}
        for epoch, snapshot in self.snapshots.items():
            tensors |= {f"snapshot/{epoch}/{n}": torch.from_numpy(v) for n, v in snapshot.items()}
        return tensors

    def restore(self, tensors: Mapping[str, torch.Tensor], epochs: Sequence[Epoch]) -> None:
        """Continue where `state` was taken.

        Raises:
            KeyError, RuntimeError: the tensors are not of this training.
        """
        self.epochs = list(epochs)
        self._step = len(epochs) * self.steps_per_epoch
        self._generator.set_state(tensors["generator"])
        self._restore_snapshots(tensors)
        for part, module in (("model", self._model), ("average", self.average)):
            module.load_state_dict(
                {name: tensors[f"{part}/{name}"] for name in module.state_dict()}
            )
        for number, optimizer in enumerate(self._optimizers):
            moments: dict[int, dict[str, torch.Tensor]] = {}
            for key, value in tensors.items():
                if key.startswith(f"optimizer{number}/"):
                    _, index, name = key.split("/")
                    moments.setdefault(int(index), {})[name] = value
            groups = optimizer.state_dict()["param_groups"]
            optimizer.load_state_dict({"state": moments, "param_groups": groups})

    def _restore_snapshots(self, tensors: Mapping[str, torch.Tensor]) -> None:
        for key, value in tensors.items():
            if key.startswith("snapshot/"):
                _, epoch, name = key.split("/")
                self.snapshots.setdefault(int(epoch), {})[name] = value.numpy()
        self.snapshots = dict(sorted(self.snapshots.items()))
