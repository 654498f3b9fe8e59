"""Fit the network, an epoch at a time."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import cast

import torch
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from training.augment import distort
from training.data import Data, Split
from training.model import NormalisedNetwork

BATCH_IMAGES = 256
PEAK_LEARNING_RATE = 5e-3
WEIGHT_DECAY = 1e-2
WARM_UP_SHARE = 0.1  # of all steps
AVERAGE_DECAY = 0.999


@dataclass(frozen=True)
class Epoch:
    """What one epoch did. Loss is the mean cross-entropy in nats over the augmented images."""

    epoch: int
    loss: float
    accuracy: float  # on the held-out images, of the averaged weights
    learning_rate: float  # at the end of the epoch
    seconds: float


class Fit:
    """AdamW with warm-up and cosine decay, on augmented images, with averaged weights.

    `model` holds the averaged weights, those that are evaluated and published.
    """

    def __init__(self, model: NormalisedNetwork, data: Data, epochs: int, seed: int) -> None:
        self._data = data
        self._epochs = epochs
        self._raw = model
        self._generator = torch.Generator().manual_seed(seed)
        self._optimizer = torch.optim.AdamW(
            model.parameters(), lr=PEAK_LEARNING_RATE, weight_decay=WEIGHT_DECAY
        )
        self.steps_per_epoch = math.ceil(len(data.train) / BATCH_IMAGES)
        self._schedule = torch.optim.lr_scheduler.LambdaLR(self._optimizer, self._rate)
        # Early weights count for little: the decay grows to its limit over the first steps.
        self._average = AveragedModel(model)
        self._step = 0

    @property
    def model(self) -> NormalisedNetwork:
        """The network with the averaged weights."""
        return cast("NormalisedNetwork", self._average.module)

    def run(self, on_step: Callable[[], None]) -> Iterator[Epoch]:
        """Train, calling `on_step` after every batch; yield a record after every epoch."""
        pixels = self._data.train.pixels()
        for epoch in range(1, self._epochs + 1):
            started = time.perf_counter()
            loss = self._run_epoch(pixels, on_step)
            yield Epoch(
                epoch=epoch,
                loss=loss,
                accuracy=accuracy(self.model, self._data.held_out),
                learning_rate=float(self._schedule.get_last_lr()[0]),
                seconds=time.perf_counter() - started,
            )

    def _run_epoch(self, pixels: torch.Tensor, on_step: Callable[[], None]) -> float:
        self._raw.train()
        total = 0.0
        order = torch.randperm(len(pixels), generator=self._generator)
        for indices in order.split(BATCH_IMAGES):
            images = distort(pixels[indices], self._generator)
            loss = functional.cross_entropy(self._raw(images), self._data.train.labels[indices])
            self._optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self._optimizer.step()
            self._schedule.step()
            self._update_average()
            total += loss.item() * len(indices)
            on_step()
        return total / len(pixels)

    def _update_average(self) -> None:
        self._step += 1
        decay = min(AVERAGE_DECAY, self._step / (self._step + 10))
        self._average.multi_avg_fn = get_ema_multi_avg_fn(decay)
        self._average.update_parameters(self._raw)

    def _rate(self, step: int) -> float:
        """Return the share of the peak learning rate: linear warm-up, then cosine to 0."""
        total = self._epochs * self.steps_per_epoch
        warm_up = max(1, round(total * WARM_UP_SHARE))
        if step < warm_up:
            return (step + 1) / warm_up
        return 0.5 * (1 + math.cos(math.pi * min(1, (step - warm_up) / max(1, total - warm_up))))


@torch.no_grad()
def accuracy(model: torch.nn.Module, split: Split) -> float:
    """Return the share of the images, in 0..1, whose largest logit is the label's."""
    model.eval()
    return (model(split.pixels()).argmax(dim=1) == split.labels).to(torch.float64).mean().item()
