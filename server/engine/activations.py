"""The activations of a traced run: values, statistics and largest values of any request's rows."""

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np


class Statistics(NamedTuple):
    """Statistics over all elements of a stage, those that are not finite left out but counted."""

    min: float
    max: float
    mean: float
    standard_deviation: float
    l2_norm: float
    zero_share: float
    nan_count: int = 0
    infinity_count: int = 0


class _Moments(NamedTuple):
    """What statistics are made from: of some elements of each stage, arrays […, stages]."""

    lowest: np.ndarray
    highest: np.ndarray
    mean: np.ndarray
    squares: np.ndarray  # sums of squared distances from the mean
    zeros: np.ndarray
    elements: np.ndarray  # how many of them

    def statistics(self) -> np.ndarray:
        """Return the statistics, […, stages, 6], in the order of the message's fields."""
        found = np.empty((6, *self.mean.shape))
        with np.errstate(invalid="ignore"):  # what is not finite is seen later
            found[0], found[1], found[2] = self.lowest, self.highest, self.mean
            found[3] = np.sqrt(self.squares / self.elements)
            found[4] = np.sqrt(self.squares + self.elements * np.square(self.mean))
            found[5] = self.zeros / self.elements
        return np.moveaxis(found, 0, -1)


class RunStatistics:
    """The statistics of some stages, each [N, …], over any of the N images.

    They are made from sums over each stage of each image, taken in float64, all
    stages side by side: for one image a call of NumPy costs more than its
    arithmetic. Those of several images are put together from the images' own means
    and squared distances (Chan, Golub and LeVeque 1979), so that nothing cancels.
    """

    def __init__(self, stages: Mapping[str, np.ndarray]) -> None:
        self._stages = stages
        self._columns = {name: column for column, name in enumerate(stages)}
        every = [values.reshape(len(values), -1) for values in stages.values()]
        sizes = np.array([rows.shape[1] for rows in every])  # elements of an image
        starts = np.cumsum(sizes) - sizes
        side_by_side = np.concatenate(every, axis=1)
        exact = side_by_side.astype(np.float64)
        with np.errstate(invalid="ignore"):  # infinity less infinity
            means = np.add.reduceat(exact, starts, axis=1) / sizes
            exact -= np.repeat(means, sizes, axis=1)
        self._images = _Moments(
            np.minimum.reduceat(side_by_side, starts, axis=1),
            np.maximum.reduceat(side_by_side, starts, axis=1),
            means,
            np.add.reduceat(np.square(exact, out=exact), starts, axis=1),
            np.add.reduceat(side_by_side == 0, starts, axis=1, dtype=np.intp),
            sizes,
        )
        self._several: dict[tuple[int, int], list[list[float]]] = {}

    def of(self, stage: str, rows: slice) -> Statistics:
        """Return a stage's statistics over all elements of these images."""
        found = self._of(rows)[self._columns[stage]]
        if not math.isfinite(found[2]):  # a sum of finite float32 values can't overflow float64
            return _finite_statistics(self._stages[stage][rows])
        return _statistics(found)

    def _of(self, rows: slice) -> list[list[float]]:
        """Return the statistics of every stage over these images."""
        if rows.stop - rows.start == 1:
            return self._of_each[rows.start]
        key = rows.start, rows.stop
        if key not in self._several:
            self._several[key] = self._together(rows).statistics().tolist()
        return self._several[key]

    @cached_property
    def _of_each(self) -> list[list[list[float]]]:
        found: list[list[list[float]]] = self._images.statistics().tolist()
        return found

    def _together(self, rows: slice) -> _Moments:
        images = self._images
        means = images.mean[rows]
        mean = means.mean(axis=0)
        with np.errstate(invalid="ignore"):
            apart = np.square(means - mean).sum(axis=0)
        return _Moments(
            images.lowest[rows].min(axis=0),
            images.highest[rows].max(axis=0),
            mean,
            images.squares[rows].sum(axis=0) + images.elements * apart,
            images.zeros[rows].sum(axis=0),
            len(means) * images.elements,
        )


def statistics(values: np.ndarray) -> Statistics:
    """Return the statistics of an array [N, …]."""
    return RunStatistics({"": values}).of("", slice(0, len(values)))


def _statistics(found: Sequence[float]) -> Statistics:
    return Statistics(found[0], found[1], found[2], found[3], found[4], found[5])


def _finite_statistics(values: np.ndarray) -> Statistics:
    """Return the statistics of an array of which some elements are NaN or infinite."""
    finite = values[np.isfinite(values)]
    found = statistics(finite.reshape(1, -1)) if finite.size else _statistics([math.nan] * 6)
    return found._replace(
        zero_share=np.count_nonzero(values == 0) / values.size,
        nan_count=int(np.isnan(values).sum()),
        infinity_count=int(np.isinf(values).sum()),
    )


class TracedRun:
    """The outputs of a run, of which a request owns some rows."""

    def __init__(
        self, values: dict[str, np.ndarray], unchanged_logits: np.ndarray, seconds: float
    ) -> None:
        self._values = values
        # Of every image, [N, classes]; with interventions only if a request wants them.
        self.unchanged_logits = unchanged_logits
        self.seconds = seconds  # of the runtime alone

    def values(self, stage: str) -> np.ndarray:
        """Return a stage's output for every image of the run, [N, …]."""
        return self._values[stage]

    @cached_property
    def statistics(self) -> RunStatistics:
        """The statistics of every stage of the run, made when somebody asks."""
        return RunStatistics(self._values)


def largest(values: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return positions and values, [N, count], of the largest of each image, largest first."""
    rows = values.reshape(len(values), -1)
    # A stable sort of the negated rows puts the lower position first among equals.
    order = np.argsort(-rows, axis=1, kind="stable")[:, :count]
    return order, np.take_along_axis(rows, order, axis=1)
