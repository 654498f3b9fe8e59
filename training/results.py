"""The results of trainings, and the choice among them."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from export.network import Network, weights_of
from export.writers import write_weights
from training.config import Recipe
from training.evaluate import Evaluation, Score
from training.history import Epoch


@dataclass(frozen=True)
class TrainingResult:
    """A finished training: its network and the network's figures."""

    recipe: Recipe
    epochs: tuple[Epoch, ...]
    network: Network  # takes pixels 0..1
    held_out: Score
    test: Evaluation
    # Its weights as they were after some epochs, 0 before the first, ascending: float16 by name.
    snapshots: Mapping[int, Mapping[str, np.ndarray]] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """Time of the training."""
        return math.fsum(epoch.seconds for epoch in self.epochs)

    @property
    def weights_sha256(self) -> str:
        """SHA-256 of `weights.safetensors`."""
        return hashlib.sha256(write_weights(weights_of(self.network))).hexdigest()


def best_result(results: Sequence[TrainingResult]) -> TrainingResult:
    """Return the result with the best accuracy on held-out images; of equal ones the lower loss."""
    return max(results, key=lambda result: (result.held_out.accuracy, -result.held_out.loss))
