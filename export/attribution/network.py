"""A network's parameters in float64, as attribution needs them, made once for a version."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Self

import numpy as np

from export.architecture import Precision, Stage
from export.parity.bounds import AbsoluteLayer

ROUNDOFF = 2.0**-53  # of float64
UNDERFLOW = 2.0**-1000  # far more than a sum in float64 loses to it


@dataclass(frozen=True)
class Layer:
    """The parameters of a linear layer in float64, and their magnitudes."""

    weight: np.ndarray  # [out, in]
    bias: np.ndarray  # [out]
    absolute: AbsoluteLayer

    @classmethod
    def of(cls, stage: Stage, weights: Mapping[str, np.ndarray]) -> Self:
        """Return that of a stage."""
        weight, bias = (
            weights[f"{stage.name}.{part}"].astype(np.float64) for part in ("weight", "bias")
        )
        return cls(weight, bias, AbsoluteLayer(np.abs(weight), np.abs(bias)))

    def own_rounding(self, gradient: np.ndarray, reach: np.ndarray) -> np.ndarray:
        """Return what float64 may lose of a score in a layer and in the gradient through it, [S].

        `gradient` [S, out] is that of the score; no input of the layer is larger than `reach` [S].

        A sum of n products in float64 is off by at most 2n·2⁻⁵³ times their magnitudes. Two values
        of the layer, the gradient through it times two inputs, and its bias term are such sums: for
        each output together at most 8·(in + out + 2) times |gradient|·(Σ|W|·reach + |b|).
        """
        terms = sum(self.weight.shape) + 2
        largest = reach[:, None] * self.absolute.row_sums + self.absolute.bias
        return 8 * terms * (ROUNDOFF * weighted(gradient, largest) + UNDERFLOW)


def weighted(gradient: np.ndarray, errors: np.ndarray) -> np.ndarray:
    """Return Σ |gradient|·errors of each row; where the gradient is 0, no error counts."""
    with np.errstate(invalid="ignore"):
        return np.where(gradient == 0, 0.0, np.abs(gradient) * errors).sum(axis=1)


def largest_magnitude(rows: np.ndarray) -> np.ndarray:
    """Return that of each row, without a copy."""
    found: np.ndarray = np.maximum(rows.max(axis=1), -rows.min(axis=1))
    return found


@dataclass(frozen=True)
class Network:
    """The stages of a network, and its linear layers by stage name."""

    stages: Sequence[Stage]
    layers: Mapping[str, Layer]
    precision: Precision  # of the runtime whose runs are attributed

    @classmethod
    def of(
        cls, stages: Sequence[Stage], weights: Mapping[str, np.ndarray], precision: Precision
    ) -> Self:
        """Return that of the stages with these weights."""
        layers = {
            stage.name: Layer.of(stage, weights) for stage in stages if stage.operation == "Linear"
        }
        return cls(stages, layers, precision)

    @property
    def absolute(self) -> Mapping[str, AbsoluteLayer]:
        """The magnitudes of the parameters, by stage name."""
        return {name: layer.absolute for name, layer in self.layers.items()}

    @property
    def steps(self) -> Sequence[tuple[Stage, Stage]]:
        """Each stage but the first, after the one that it is computed from."""
        return list(pairwise(self.stages))

    def names(self, *operations: str) -> list[str]:
        """Return the names of the stages of these operations, in order."""
        return [stage.name for stage in self.stages if stage.operation in operations]

    def layers_after(self, stage: str) -> list[str]:
        """Return the names of the linear layers after a stage."""
        names = [each.name for each in self.stages]
        return [name for name in names[names.index(stage) + 1 :] if name in self.layers]
