"""How far a runtime may be from the exact forward pass, stage by stage.

Notation: u is the unit of rounding of the accumulation, γ(n) = n·u / (1 - n·u),
v the unit of rounding of the factors, η the most that underflow takes from a
number. In float32 u = 2⁻²⁴, v = 0 and η = 2⁻¹⁴⁹.

**Sums.** A sum of n products, computed in any order, with or without fused
multiply-add, differs from the exact sum by at most γ(n) times the sum of the
products' magnitudes (Higham, Accuracy and Stability of Numerical Algorithms,
2nd ed., section 3.1); adding a bias makes that γ(n+1), and terms that are
exactly 0 add no rounding.

**Partial sums.** In float32 that is sharpened. Let P be the sum of the positive terms, N that
of the magnitudes of the negative ones, M = max(P, N). Whatever the order, each addition joins
the sums of two disjoint sets of terms, whose exact sum is in [-N, P]. So a sum of m terms has
an error of at most e(m) with e(1) = 0 and e(m + k) ≤ (1+u)(e(m) + e(k)) + u·M, and by induction
e(m) ≤ ((1+u)^(m-1) - 1)·M ≤ γ(m-1)·M: with x = (1+u)^m and y = (1+u)^k the step needs
x + y - (1+u) ≤ xy/(1+u), that is 0 ≤ (x - (1+u))·(y - (1+u)). Each product was rounded before,
by at most u times its magnitude (not with fused multiply-add), which makes M at most 1+u times
as large. Since P + N are the magnitudes of all terms and P - N is their sum, M is half of the
sum of both, and never more than all magnitudes.

**Factors.** TF32 and bfloat16 round both factors of a product before they
multiply, so it is off by at most c times its magnitude, c = (1+v)² - 1 = 2v + v²,
and the sum has magnitudes grown by 1 + c to add up.

**Tensor cores** add k products and the sum so far in one go: all are aligned to
the largest and cut to its last place, and so is the result (Fasi, Higham,
Mikaitis, Pranesh, Numerical behavior of NVIDIA tensor cores, 2021). Each of the
k + 2 cuts loses at most 2⁻²³ of the magnitudes that were added. For n products
and k of 2 or more these are at most 2(n+1) cuts, so u = 2⁻²² covers them.

**Layers.** With E the error that the layer's input h already carries:

    Linear:  |W|E + c·|W|(|h| + E) + γ(live+1)·((1 + c)·|W|(|h| + E) + |b|)
             live = inputs that may differ from 0
             float32: |W|E + u·|W|(|h| + E) + (1+u)·γ(live)·M,
             M = (|W||h| + |b| + |Wh + b|)/2 + |W|E
    ReLU:    E where h + E > 0, else exactly 0        (exact, and 1-Lipschitz)
    Flatten: E

**Changes** (export/runtimes/changes.py) make min(max(s·x + t, low), high) of an element x that
carries the error E. The product is rounded by at most p = u·|s|(|x| + E), the sum by at most
u·(|s·x + t| + |s|E + p); fused, only the sum is, and by no more. So s·x + t is off by at most

    B = |s|E + p + u·(|s·x + t| + |s|E + p) + 2η

where p = 0 for s = 0 or ±1, a product that is exact; the sum is exact for s = 0 or t = 0, and
nothing is lost by underflow where both are exact. Bringing within bounds is exact and
1-Lipschitz, and keeps any two results within high - low of each other: the error is at most
min(B, high - low), and 0 where s·x + t is beyond a bound by B or more. It is infinite where E is,
since 0 times an infinite value is no number.

**Underflow.** A product of factors that underflow, (w + ηw)(h + ηh) + ηp with every
error at most η, is off by η(1 + |w| + |h| + η) more, and a bias that is flushed by
η; that is added for every live term, and doubled for sums that underflow and for
the roundings that it passes through afterwards.

**The oracle** is float64, whose own error is bounded in the same way; both are
taken in at once by u + 2⁻⁵³ in place of u, since γ is superadditive in u. The
bound itself is computed in float64 too: the factor 1 + 2⁻³⁰ is far more than
that can lose in any layer of up to a million inputs.

**Overflow.** Where the magnitudes add up to more than float32 can hold, some
order of summation overflows; the bound is infinite there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple, Self

import numpy as np

from export.architecture import Precision, Stage
from export.runtimes.changes import Changes, StageChanges

ORACLE_ROUNDOFF = 2.0**-53
OWN_ROUNDING = 1 + 2.0**-30
OWN_DIFFERENCE = 2.0**-50  # of a number: more than float64 loses when it adds it to another
LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Arithmetic:
    """How a device multiplies and adds: the units v, u and η of the formulas above."""

    factor_roundoff: float
    sum_roundoff: float
    underflow: float


ARITHMETIC: Mapping[Precision, Arithmetic] = {
    "float32": Arithmetic(0.0, 2.0**-24, 2.0**-149),
    # 11 significant bits. A tensor core ignores the others, which truncates (2⁻¹⁰) unless the
    # library rounded before (2⁻¹¹); it may flush subnormals.
    "tf32": Arithmetic(2.0**-10, 2.0**-22, 2.0**-126),
    # 8 significant bits, rounded to nearest; added like TF32.
    "bfloat16": Arithmetic(2.0**-8, 2.0**-22, 2.0**-126),
}


@dataclass(frozen=True)
class Reference:
    """The exact outputs of images by stage, float64 [N, …], and the bound of each element."""

    values: Mapping[str, np.ndarray]
    bounds: Mapping[str, np.ndarray]


class Changed(NamedTuple):
    """The changes of a forward pass, and the changed stages' outputs before their own changes."""

    changes: Changes
    before: Mapping[str, np.ndarray]


UNCHANGED = Changed({}, {})


def bounded(
    stages: Sequence[Stage],
    weights: Mapping[str, np.ndarray],
    values: Mapping[str, np.ndarray],
    precision: Precision,
    changed: Changed = UNCHANGED,
) -> Reference:
    """Return the exact outputs with the bound of every element at a precision.

    `values` are the outputs of every stage in float64, [N, …], by stage name, with the changes.
    """
    layers = {
        stage.name: AbsoluteLayer.of(stage, weights)
        for stage in stages
        if stage.operation == "Linear"
    }
    return Reference(values, bounds_of(stages, layers, values, precision, changed))


def bounds_of(
    stages: Sequence[Stage],
    layers: Mapping[str, "AbsoluteLayer"],
    values: Mapping[str, np.ndarray],
    precision: Precision,
    changed: Changed = UNCHANGED,
) -> dict[str, np.ndarray]:
    """Return the bounds of a reference; `layers` are the linear ones, by stage name."""
    changes, own = changed.changes, {**values, **changed.before}  # what each stage itself computes
    image = values[stages[0].name]
    bound = np.zeros((1, *image.shape[1:]))  # of every image: fresh memory costs time
    if (first := stages[0].name) in changes:
        bound = changed_bound(changes[first], own[first], bound, precision)
    bounds = {first: np.broadcast_to(bound, image.shape)}
    for before, stage in pairwise(stages):
        if stage.operation == "Flatten":
            bound = bound.reshape(len(bound), -1)
        elif stage.operation == "Linear":
            layer = layers[stage.name]
            carried = layer.carried(bound)
            rounding = rounding_of(layer, values[before.name], bound, own[stage.name], precision)
            total = (carried + rounding) * OWN_ROUNDING
            bound = np.where(np.isnan(total), np.inf, total)
        elif stage.operation == "ReLU":
            bound = np.where(values[before.name] + bound > 0, bound, 0.0)
        if stage.name in changes:
            bound = changed_bound(changes[stage.name], own[stage.name], bound, precision)
        bounds[stage.name] = np.broadcast_to(bound, values[stage.name].shape)
    return bounds


def changed_bound(
    changes: StageChanges, value: np.ndarray, bound: np.ndarray, precision: Precision
) -> np.ndarray:
    """Return the bounds of a stage's output after its changes.

    `value` [N, …] is the output before them, `bound` its bound, [N, …] or [1, …].
    """
    bound = np.broadcast_to(bound, value.shape)
    arithmetic = ARITHMETIC[precision]
    u, eta = arithmetic.sum_roundoff + ORACLE_ROUNDOFF, arithmetic.underflow
    scale, shift, low, high = (part.astype(np.float64) for part in changes[2:])
    exact, carried = value.reshape(-1)[changes.source], bound.reshape(-1)[changes.source]
    size = np.abs(scale)
    with np.errstate(invalid="ignore"):  # an infinite bound times 0, an infinity less itself
        reach = size * (np.abs(exact) + carried)
        moved = scale * exact + shift
        product = np.where((size == 0) | (size == 1), 0.0, u * reach)
        inexact_sum = (size > 0) & (shift != 0)
        error = size * carried + product
        error += np.where(inexact_sum, u * (np.abs(moved) + error), 0.0)
        error += np.where((product > 0) | inexact_sum, 2 * eta, 0.0)
        error = error * OWN_ROUNDING
        away = error + OWN_DIFFERENCE * (reach + np.abs(shift))
        is_beyond = (moved - away >= high) | (moved + away <= low)
        width = np.where(low == high, 0.0, (high - low) * OWN_ROUNDING)
        error = np.where(is_beyond, 0.0, np.minimum(error, width))
        fits = (reach + np.abs(shift)) * (1 + 4 * u) <= LARGEST  # False for NaN
    flat = bound.reshape(-1).copy()
    flat[changes.at] = np.where(fits, error, np.inf)
    return flat.reshape(bound.shape)


@dataclass(frozen=True)
class AbsoluteLayer:
    """The magnitudes of a linear layer's parameters: |weight| [out, in], |bias| [out]."""

    weight: np.ndarray
    bias: np.ndarray

    @classmethod
    def of(cls, stage: Stage, weights: Mapping[str, np.ndarray]) -> Self:
        """Return those of a stage."""
        parts = (weights[f"{stage.name}.{part}"] for part in ("weight", "bias"))
        return cls(*(np.abs(part.astype(np.float64, copy=False)) for part in parts))

    @cached_property
    def row_sums(self) -> np.ndarray:
        """The sums of the weights' magnitudes, [out]."""
        return self.weight.sum(axis=1)

    def carried(self, bound: np.ndarray) -> np.ndarray:
        """Return what the bound of the inputs, [N, in], makes of the outputs', [N, out].

        NaN where an infinite bound meets a weight of 0.
        """
        if not bound.any():  # that of an image, whose layer is the largest
            return np.zeros((len(bound), len(self.bias)))
        with np.errstate(invalid="ignore"):
            return bound @ self.weight.T


def rounding_of(
    layer: AbsoluteLayer,
    value: np.ndarray,
    bound: np.ndarray,
    output: np.ndarray,
    precision: Precision,
) -> np.ndarray:
    """Return the bound of a layer's own rounding, [N, out], infinite where it may overflow.

    `value` [N, in] are the exact inputs, `bound` their bound, `output` [N, out] the exact outputs.
    """
    arithmetic = ARITHMETIC[precision]
    # No copy where it changes nothing: fresh memory takes as long as the product below.
    reach = value if value.size and value.min() >= 0 else np.abs(value)
    if bound.any():
        reach = reach + bound
    live = np.count_nonzero(reach, axis=1, keepdims=True)
    v, eta = arithmetic.factor_roundoff, arithmetic.underflow
    u = arithmetic.sum_roundoff + ORACLE_ROUNDOFF
    c = 2 * v + v * v
    gamma, gamma_with_bias = (n * u / (1 - n * u) for n in (live, live + 1))
    with np.errstate(invalid="ignore"):  # an infinite bound times a weight of 0
        magnitude = reach @ layer.weight.T
        if precision == "float32":
            carried = layer.carried(bound)
            exact = magnitude - carried + layer.bias
            largest = (exact + np.abs(output)) / 2 + carried
            rounded = u * magnitude + (1 + u) * gamma * largest
        else:
            rounded = c * magnitude + gamma_with_bias * ((1 + c) * magnitude + layer.bias)
    terms = live + (layer.bias > 0)
    lost = terms * (1 + eta) + (live > 0) * layer.row_sums + reach.sum(axis=1, keepdims=True)
    total = rounded + 2 * eta * lost
    # False for NaN
    fits = (1 + c) * (1 + gamma_with_bias) * (magnitude + layer.bias) <= LARGEST
    return np.where(fits, total, np.inf)
