"""The exact forward pass, and how far a float32 runtime may be from it.

Notation: u = 2⁻²⁴ is the unit roundoff of float32, γ(n) = n·u / (1 - n·u).

A sum of n products, computed in float32 in any order, with or without fused
multiply-add, differs from the exact sum by at most γ(n) times the sum of the
products' magnitudes (Higham, Accuracy and Stability of Numerical Algorithms,
2nd ed., section 3.1); adding a bias makes that γ(n+1), and terms that are
exactly 0 add no rounding. With E the error that the layer's input h already
carries:

    Linear:  |W|·E + γ(live+1)·(|W|(|h| + E) + |b|),  live = inputs that may differ from 0
    ReLU:    E where h + E > 0, else exactly 0        (exact, and 1-Lipschitz)
    Flatten: E

The reference is computed in float64, whose own error is bounded likewise; both
are taken in at once by u = 2⁻²⁴ + 2⁻⁵³, since γ is superadditive in u. A product
that underflows loses at most 2⁻¹⁴⁹, which is added for every product.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from export.architecture import Stage

UNIT_ROUNDOFF = 2.0**-24 + 2.0**-53
SMALLEST_SUBNORMAL = 2.0**-149


@dataclass(frozen=True)
class BoundedStage:
    """A stage's exact output, and the proven bound of a float32 runtime's error; both [N, …]."""

    name: str
    value: np.ndarray
    bound: np.ndarray


def bounded_forward(
    stages: Sequence[Stage], weights: Mapping[str, np.ndarray], images: np.ndarray
) -> Iterator[BoundedStage]:
    """Yield every stage of the forward pass of images [N, H, W], in float64, with its bound."""
    value = images.astype(np.float64)
    bound = np.zeros_like(value)
    for stage in stages:
        if stage.operation == "Flatten":
            value, bound = (array.reshape(len(array), -1) for array in (value, bound))
        elif stage.operation == "Linear":
            weight, bias = (
                weights[f"{stage.name}.{part}"].astype(np.float64) for part in ("weight", "bias")
            )
            bound = _linear_bound(value, bound, weight, bias)
            value = value @ weight.T + bias
        elif stage.operation == "ReLU":
            bound = np.where(value + bound > 0, bound, 0.0)
            value = np.maximum(value, 0.0)
        yield BoundedStage(stage.name, value, bound)


def _linear_bound(
    value: np.ndarray, bound: np.ndarray, weight: np.ndarray, bias: np.ndarray
) -> np.ndarray:
    """Return [N, out] from value and bound [N, in], weight [out, in], bias [out]."""
    reach = np.abs(value) + bound
    live = np.count_nonzero(reach, axis=1, keepdims=True)
    magnitude = np.abs(weight)
    carried: np.ndarray = bound @ magnitude.T
    rounding = _gamma(live + 1) * (reach @ magnitude.T + np.abs(bias))
    return carried + rounding + live * SMALLEST_SUBNORMAL


def _gamma(count: np.ndarray) -> np.ndarray:
    return count * UNIT_ROUNDOFF / (1 - count * UNIT_ROUNDOFF)
