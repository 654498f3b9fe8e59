"""Certified decisions: no runtime within its bounds can decide otherwise.

A runtime's difference of two logits i and j is off by at most

    Σ |W_i - W_j|·E + r_i + r_j

with the weights W of the last layer, the bounds E of its inputs and the bounds r of its own
rounding (export/parity/bounds.py): the inputs are the same for both logits, so that their errors
count by the difference of the weights. The exact pass in float64 is within the same bounds, which
are of its distance from a runtime. If the exact difference of the largest logit and every other is
larger than that, every runtime decides as the exact forward pass does.

Where the logits are not what the last layer computes, because a change or a ReLU follows it, the
difference of i and j is off by at most the sum of the two logits' own bounds.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from export.architecture import Precision, Stage
from export.parity.bounds import (
    OWN_ROUNDING,
    AbsoluteLayer,
    Changed,
    Reference,
    bounds_of,
    rounding_of,
)
from export.runtimes.changes import Changes
from export.runtimes.numpy import NO_CHANGES, NumpyRunner


@dataclass(frozen=True)
class Certificates:
    """The decisions of N images, an array [N] each.

    `nearest` is the class that comes the nearest to the predicted one: `gap` is the exact
    difference of the two logits, and `bound` that of its error in any runtime.
    """

    predicted: np.ndarray
    nearest: np.ndarray
    gap: np.ndarray
    bound: np.ndarray

    @property
    def certified(self) -> np.ndarray:
        """Whether no runtime can decide otherwise, [N]."""
        return self.gap > self.bound  # False for NaN


class Proof(NamedTuple):
    """What is proven of some images at a precision."""

    reference: Reference
    certificates: Certificates


class Prover:
    """The exact forward pass of a network with what is proven of every runtime's distance."""

    def __init__(self, stages: Sequence[Stage], weights: Mapping[str, np.ndarray]) -> None:
        self._stages = stages
        self.oracle = NumpyRunner(stages, weights)
        self._layers = {
            stage.name: AbsoluteLayer.of(stage, weights)
            for stage in stages
            if stage.operation == "Linear"
        }

    def prove(
        self, images: np.ndarray, precision: Precision, changes: Changes = NO_CHANGES
    ) -> Proof:
        """Return the proof for images [N, H, W], with changes, at a precision."""
        return self.prove_each(images, (precision,), changes)[precision]

    def prove_each(
        self, images: np.ndarray, precisions: Iterable[Precision], changes: Changes = NO_CHANGES
    ) -> dict[Precision, Proof]:
        """Return the proofs at several precisions, of one exact forward pass."""
        values, before = self.oracle.trace_both(images, changes)
        proofs = {}
        for precision in precisions:
            changed = Changed(changes, before)
            bounds = bounds_of(self._stages, self._layers, values, precision, changed)
            reference = Reference(values, bounds)
            certificates = self._certify(reference, precision, changes)
            proofs[precision] = Proof(reference, certificates)
        return proofs

    def _certify(
        self, reference: Reference, precision: Precision, changes: Changes
    ) -> Certificates:
        output = self._stages[-1].name
        logits, single = reference.values[output], reference.bounds[output]
        predicted = logits.argmax(axis=1)
        images = np.arange(len(logits))
        gaps = logits[images, predicted][:, None] - logits
        gaps[images, predicted] = np.inf  # a single class has no rival
        error = single + single[images, predicted][:, None]
        if self._stages[-2].operation == "Linear":
            is_computed = ~_changed_images(self._stages[-2], changes, len(logits))
            error[is_computed] = self._joint_error(reference, precision)[is_computed]
        error = np.where(np.isnan(error), np.inf, error * OWN_ROUNDING)
        error[images, predicted] = 0.0
        nearest = (gaps - error).argmin(axis=1)
        return Certificates(predicted, nearest, gaps[images, nearest], error[images, nearest])

    def _joint_error(self, reference: Reference, precision: Precision) -> np.ndarray:
        """Return the bound of each logit's difference to the predicted one, [N, classes]."""
        before, last = self._stages[-3:-1]
        layer, weight = self._layers[last.name], self.oracle.weights[f"{last.name}.weight"]
        inputs, bounds = reference.values[before.name], reference.bounds[before.name]
        logits = reference.values[last.name]
        rounding = rounding_of(layer, inputs, bounds, logits, precision)
        predicted = logits.argmax(axis=1)
        with np.errstate(invalid="ignore"):  # an infinite bound times a difference of 0
            carried = np.empty_like(logits)
            for decided in np.unique(predicted):
                rows = predicted == decided
                carried[rows] = bounds[rows] @ np.abs(weight[decided] - weight).T
            own = rounding[np.arange(len(logits)), predicted][:, None]
            joint: np.ndarray = carried + own + rounding
        return joint


def _changed_images(stage: Stage, changes: Changes, images: int) -> np.ndarray:
    """Tell which images have a change of the stage, [N]."""
    is_changed = np.zeros(images, bool)
    if stage.name in changes:
        is_changed[changes[stage.name].at // stage.size] = True
    return is_changed
