"""Interventions: what a request changes of the stages' outputs, as changes of a run.

Whatever the order of a stage's interventions, an element becomes

    min(max(scale · x[source] + shift, low), high)

of the stage's output x before: this form is closed under setting, adding, scaling, clamping and
taking another image's value. Its numbers are computed in float64 and rounded to float32 once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from export.runtimes.changes import Changes, StageChanges


class Set(NamedTuple):
    """The value becomes a given one: one for each unit, or one for all."""

    values: np.ndarray


class Add(NamedTuple):
    """A number is added to the value."""

    number: float


class Scale(NamedTuple):
    """The value is multiplied by a number."""

    number: float


class Clamp(NamedTuple):
    """The value is brought within bounds, which may be infinite."""

    low: float
    high: float


class FromImage(NamedTuple):
    """The value becomes that of another image, as the interventions before left it."""

    image: int


Change = Set | Add | Scale | Clamp | FromImage


@dataclass(frozen=True, slots=True)
class Intervention:
    """A change of some units of a stage for some images of a request."""

    stage: str
    units: np.ndarray  # positions in an image's flattened output
    images: np.ndarray  # positions in the request
    change: Change


class _Elements:
    """The form above of each element of a stage that interventions touch, [images, units]."""

    def __init__(self, images: np.ndarray, units: np.ndarray, size: int) -> None:
        self._images, self._units = images, units
        shape = (len(images), len(units))
        self._at = images[:, None] * size + units
        self._source = self._at.copy()
        self._scale, self._shift = np.ones(shape), np.full(shape, -0.0)
        self._low, self._high = np.full(shape, -np.inf), np.full(shape, np.inf)
        self._is_changed = np.zeros(shape, bool)

    def apply(self, intervention: Intervention) -> None:
        """Apply an intervention after those before it."""
        units = np.searchsorted(self._units, intervention.units)
        here = np.ix_(np.searchsorted(self._images, intervention.images), units)
        self._is_changed[here] = True
        match intervention.change:
            case Set(values):
                self._scale[here], self._shift[here] = 1.0, -0.0
                self._low[here] = self._high[here] = values
            case Add(number):
                for part in (self._shift, self._low, self._high):
                    part[here] += number
            case Scale(number):
                self._multiply(here, number)
            case Clamp(low, high):
                for part in (self._low, self._high):
                    part[here] = np.clip(part[here], low, high)
            case FromImage(image):
                there = np.ix_(np.searchsorted(self._images, [image]), units)
                for part in (self._source, self._scale, self._shift, self._low, self._high):
                    part[here] = part[there]

    def _multiply(self, here: tuple[np.ndarray, ...], number: float) -> None:
        if number == 0:
            self._low[here] = self._high[here] = 0.0  # an infinite bound has no product with 0
            return
        self._scale[here] *= number
        self._shift[here] *= number
        low, high = self._low[here] * number, self._high[here] * number
        self._low[here], self._high[here] = (low, high) if number > 0 else (high, low)

    def changes(self) -> StageChanges:
        """Return the changes, in float32."""
        parts = (self._scale, self._shift, self._low, self._high)
        changed = self._is_changed
        with np.errstate(over="ignore"):  # infinite bounds bound nothing; see `overflows`
            numbers = [part[changed].astype(np.float32) for part in parts]
        return StageChanges(self._at[changed], self._source[changed], *numbers)


def changes_of(interventions: Sequence[Intervention], sizes: Mapping[str, int]) -> Changes:
    """Return the changes of a request's own run; `sizes` has the units of each stage."""
    by_stage: dict[str, list[Intervention]] = {}
    for intervention in interventions:
        by_stage.setdefault(intervention.stage, []).append(intervention)
    return {stage: _stage_changes(several, sizes[stage]) for stage, several in by_stage.items()}


def _stage_changes(interventions: Sequence[Intervention], size: int) -> StageChanges:
    sources = [
        np.array([one.change.image], np.int64)
        for one in interventions
        if isinstance(one.change, FromImage)
    ]
    images = _union([*(one.images for one in interventions), *sources])
    units = _union([one.units for one in interventions])
    elements = _Elements(images, units, size)
    for intervention in interventions:
        elements.apply(intervention)
    return elements.changes()


def _union(positions: Sequence[np.ndarray]) -> np.ndarray:
    """Return all positions once, in order; an array of them has each once."""
    if len(positions) == 1:
        return np.sort(positions[0])
    return np.unique(np.concatenate(positions))


def joined(requests: Sequence[Changes], starts: Sequence[int], sizes: Mapping[str, int]) -> Changes:
    """Return the changes of a run that requests share; `starts` has the first image of each."""
    together: dict[str, StageChanges] = {}
    for stage, size in sizes.items():
        several = [
            changes[stage]._replace(
                at=changes[stage].at + start * size, source=changes[stage].source + start * size
            )
            for changes, start in zip(requests, starts, strict=True)
            if stage in changes
        ]
        if several:
            together[stage] = StageChanges(*map(np.concatenate, zip(*several, strict=True)))
    return together
