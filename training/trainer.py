"""Trainer the network, an epoch at a time, to the same bits from the same recipe."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import get_total_norm

from export.architecture import mlp
from training.augment import distort
from training.config import Recipe
from training.data import IMAGE_SIDE, Data
from training.history import Epoch
from training.model import NormalisedNetwork
from training.muon import Muon

MOMENTUM = 0.9  # Nesterov's
BIAS_LEARNING_RATE = 2e-3  # peak
WARM_UP_SHARE = 0.1  # of all steps
TAPER_SHARE = 0.3  # of all steps, at the end


@contextmanager
def deterministic(threads: int) -> Iterator[None]:
    """Compute the same bits every time, with so many threads, while the block runs."""
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
    """Sums over an epoch, tensors on the device: nothing waits for them before its end."""

    loss: torch.Tensor
    right: torch.Tensor
    gradient_norm: torch.Tensor


class Trainer:
    """Muon with warm-up and cosine decay, on distorted images, with averaged weights.

    Muon (Jordan et al. 2024) steps along the momentum of each weight matrix with its
    singular values all brought near 1; the biases, no matrices, take AdamW.
    `average` has the averaged weights: those that are evaluated and published.
    """

    def __init__(self, recipe: Recipe, data: Data) -> None:
        self.recipe = recipe
        self.epochs: list[Epoch] = []  # those that are done
        self._train, self._held_out = data.train.to(recipe.device), data.held_out.to(recipe.device)
        self._pixels = self._train.pixels()
        # One generator for all that is drawn, on the CPU, whatever the device.
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
        self._steps = recipe.epochs * self.steps_per_epoch
        self._step = 0

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

    def run(self, on_step: Callable[[], None]) -> Iterator[Epoch]:
        """Train on, calling `on_step` after every step; yield a record after every epoch."""
        while len(self.epochs) < self.recipe.epochs:
            started = time.perf_counter()
            totals = self._run_epoch(on_step)
            self.epochs.append(self._record(totals, started))
            yield self.epochs[-1]

    def _run_epoch(self, on_step: Callable[[], None]) -> EpochTotals:
        totals = EpochTotals(*torch.zeros(3, device=self.recipe.device).unbind())
        order = torch.randperm(len(self._train), generator=self._generator)
        for indices in order.to(self.recipe.device).split(self.recipe.batch_images):
            self._run_step(indices, totals)
            on_step()
        return totals

    def _run_step(self, indices: torch.Tensor, totals: EpochTotals) -> None:
        images = distort(self._pixels[indices], self._generator, self._augmentation())
        labels = self._train.labels[indices]
        share = self._learning_rate_share()
        for optimizer, peak in self._optimizers.items():
            optimizer.param_groups[0]["lr"] = peak * share
        logits = self._model(images)
        loss = functional.cross_entropy(logits, labels)
        self._model.zero_grad(set_to_none=True)
        loss.backward()
        for optimizer in self._optimizers:
            optimizer.step()
        self._step += 1
        self._update_average()
        gradients = [p.grad for p in self._model.parameters() if p.grad is not None]
        totals.loss.add_(loss.detach(), alpha=len(indices))
        totals.right.add_((logits.detach().argmax(dim=1) == labels).sum())
        totals.gradient_norm.add_(get_total_norm(gradients))

    @torch.no_grad()
    def _update_average(self) -> None:
        # Early weights count for little: the decay grows to its limit over the first steps.
        decay = min(self.recipe.average_decay, self._step / (self._step + 10))
        for averaged, now in zip(self.average.parameters(), self._model.parameters(), strict=True):
            averaged.lerp_(now, 1 - decay)

    def _learning_rate_share(self) -> float:
        """Return the share of its peak that the next step's rate is: warm-up, then cosine to 0."""
        warm_up = max(1, round(self._steps * WARM_UP_SHARE))
        if self._step < warm_up:
            return (self._step + 1) / warm_up
        share = (self._step - warm_up) / max(1, self._steps - warm_up)
        return 0.5 * (1 + math.cos(math.pi * share))

    def _augmentation(self) -> float:
        """Return the strength of the next step's distortions: constant, then linear to its end."""
        start, end = self.recipe.augmentation, self.recipe.augmentation_end
        left = (self._steps - self._step) / self._steps
        return end + (start - end) * min(1.0, left / TAPER_SHARE)

    def _record(self, totals: EpochTotals, started: float) -> Epoch:
        loss, accuracy, dead_units = self._evaluate_held_out()
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
            held_out_loss=loss,
            held_out_accuracy=accuracy,
            learning_rate=float(rate),
            augmentation=self._augmentation(),
            gradient_norm=totals.gradient_norm.item() / self.steps_per_epoch,
            dead_units=dead_units,
            weight_norms={name: weight.norm().item() for name, weight in weights.items()},
            seconds=time.perf_counter() - started,
        )

    @torch.no_grad()
    def _evaluate_held_out(self) -> tuple[float, float, int]:
        """Return the averaged weights' loss and accuracy on the held-out images, and dead units."""
        traced = self.average.trace(self._held_out.pixels())
        logits = list(traced.values())[-1]
        loss = functional.cross_entropy(logits, self._held_out.labels).item()
        dead = sum(
            int((traced[stage.name].amax(dim=0) == 0).sum())
            for stage in self.average.network.stages
            if stage.operation == "ReLU"
        )
        return loss, accuracy_of(logits, self._held_out.labels), dead

    def state(self) -> dict[str, torch.Tensor]:
        """Return the tensors that, with the epochs' records, continue the training."""
        tensors = {"generator": self._generator.get_state()}
        for part, module in (("model", self._model), ("average", self.average)):
            tensors |= {f"{part}/{name}": value for name, value in module.state_dict().items()}
        for number, optimizer in enumerate(self._optimizers):
            for index, moments in optimizer.state_dict()["state"].items():
                tensors |= {f"optimizer{number}/{index}/{name}": v for name, v in moments.items()}
        return tensors

    def restore(self, tensors: Mapping[str, torch.Tensor], epochs: Sequence[Epoch]) -> None:
        """Continue where `state` was taken.

        Raises:
            KeyError, RuntimeError: the tensors are not of this training.
        """
        self.epochs = list(epochs)
        self._step = len(epochs) * self.steps_per_epoch
        self._generator.set_state(tensors["generator"])
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


def accuracy_of(logits: torch.Tensor, labels: torch.Tensor) -> float:
    """Return the share of the rows [N, C], in 0..1, whose largest logit is the label's."""
    return (logits.argmax(dim=1) == labels).to(torch.float64).mean().item()
