"""How far a runtime may be from the exact forward pass, stage by stage.

Notation: u is the unit of rounding of the accumulation, γ(n) = n·u / (1 - n·u),
v the unit of rounding of the factors, η the most that underflow takes from a
number. In float32 u = 2⁻²⁴, v = 0 and η = 2⁻¹⁴⁹.

**Sums.** A sum of n products, computed in any order, with or without fused
multiply-add, differs from the exact sum by at most γ(n) times the sum of the
products' magnitudes (Higham, Accuracy and Stability of Numerical Algorithms,
2nd ed., section 3.1); adding a bias makes that γ(n+1), and terms that are
exactly 0 add no rounding.

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
    ReLU:    E where h + E > 0, else exactly 0        (exact, and 1-Lipschitz)
    Flatten: E

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
from itertools import pairwise

import numpy as np

from export.architecture import Precision, Stage

ORACLE_ROUNDOFF = 2.0**-53
OWN_ROUNDING = 1 + 2.0**-30
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


def bounded(
    stages: Sequence[Stage],
    weights: Mapping[str, np.ndarray],
    values: Mapping[str, np.ndarray],
    precision: Precision,
) -> Reference:
    """Return the exact outputs with the bound of every element at a precision.

    `values` are the outputs of every stage in float64, [N, …], by stage name.
    """
    bound = np.zeros_like(values[stages[0].name])
    bounds = {stages[0].name: bound}
    for before, stage in pairwise(stages):
        if stage.operation == "Flatten":
            bound = bound.reshape(len(bound), -1)
        elif stage.operation == "Linear":
            weight, bias = (
                np.abs(weights[f"{stage.name}.{part}"].astype(np.float64))
                for part in ("weight", "bias")
            )
            bound = _linear(values[before.name], bound, weight, bias, ARITHMETIC[precision])
        elif stage.operation == "ReLU":
            bound = np.where(values[before.name] + bound > 0, bound, 0.0)
        bounds[stage.name] = bound
    return Reference(values, bounds)


def _linear(
    value: np.ndarray,
    bound: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray,
    arithmetic: Arithmetic,
) -> np.ndarray:
    """Return [N, out] from value and bound [N, in], |weight| [out, in], |bias| [out]."""
    reach = np.abs(value) + bound
    live = np.count_nonzero(reach, axis=1, keepdims=True)
    v, u, eta = arithmetic.factor_roundoff, arithmetic.sum_roundoff, arithmetic.underflow
    c = 2 * v + v * v
    gamma_u = (live + 1) * (u + ORACLE_ROUNDOFF)
    gamma = gamma_u / (1 - gamma_u)
    with np.errstate(invalid="ignore"):  # an infinite bound times a weight of 0
        magnitude = reach @ weight.T
        carried = bound @ weight.T
    rounded = c * magnitude + gamma * ((1 + c) * magnitude + bias)
    terms = live + (bias > 0)
    lost = terms * (1 + eta) + (live > 0) * weight.sum(axis=1) + reach.sum(axis=1, keepdims=True)
    total = (carried + rounded + 2 * eta * lost) * OWN_ROUNDING
    fits = (1 + c) * (1 + gamma) * (magnitude + bias) <= LARGEST  # False for NaN
    return np.where(fits, total, np.inf)
