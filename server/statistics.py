"""Statistics of a stage over the images of a whole run at once, and of any of its requests."""

import math
from functools import cached_property

import numpy as np

from forward.v1 import forward_pb2 as pb


class StageStatistics:
    """What the statistics of any rows of an array [N, …] are made from: sums over each image.

    Sums are taken in float64. Those of several images are put together from the
    images' own means and squared distances (Chan, Golub and LeVeque 1979), so
    that nothing cancels.
    """

    def __init__(self, values: np.ndarray) -> None:
        self.values = values
        rows = values.reshape(len(values), -1)
        self._size = rows.shape[1]
        exact = rows.astype(np.float64)
        with np.errstate(invalid="ignore"):  # infinity less infinity
            self._means = exact.sum(axis=1) / self._size
            exact -= self._means[:, None]
        # Not a dot product: its threads spin for a while after it, on every core.
        self._squares = np.square(exact, out=exact).sum(axis=1)  # of distances from the mean
        self._lowest, self._highest = rows.min(axis=1), rows.max(axis=1)
        self._zeros = (rows == 0).sum(axis=1)

    @cached_property
    def _of_each(self) -> list[tuple[float, ...]]:
        """The statistics of each image by itself, in the order of the message's fields."""
        with np.errstate(invalid="ignore"):
            columns = (
                self._lowest,
                self._highest,
                self._means,
                np.sqrt(self._squares / self._size),
                np.sqrt(self._squares + self._size * np.square(self._means)),
                self._zeros / self._size,
            )
        return list(zip(*(column.tolist() for column in columns), strict=True))

    def put(self, rows: slice, into: pb.Statistics) -> None:
        """Put the statistics over all elements of these images into an empty message."""
        found = self._of_each[rows.start] if rows.stop - rows.start == 1 else self._of_several(rows)
        if not math.isfinite(found[2]):  # a sum of finite float32 values can't overflow float64
            _put_finite_ones(self.values[rows], into)
            return
        into.min, into.max, into.mean, into.standard_deviation, into.l2_norm, into.zero_share = (
            found
        )

    def _of_several(self, rows: slice) -> tuple[float, ...]:
        means = self._means[rows]
        count = len(means) * self._size
        mean = float(means.mean())
        with np.errstate(invalid="ignore"):
            apart = float(np.square(means - mean).sum())
        squares = float(self._squares[rows].sum()) + self._size * apart
        return (
            float(self._lowest[rows].min()),
            float(self._highest[rows].max()),
            mean,
            math.sqrt(squares / count),
            math.sqrt(squares + count * mean * mean),
            float(self._zeros[rows].sum()) / count,
        )


def statistics(values: np.ndarray) -> pb.Statistics:
    """Return the statistics of an array [N, …]."""
    found = pb.Statistics()
    StageStatistics(values).put(slice(0, len(values)), found)
    return found


def _put_finite_ones(values: np.ndarray, into: pb.Statistics) -> None:
    """Put the statistics of an array of which some elements are NaN or infinite."""
    finite = values[np.isfinite(values)]
    if finite.size:
        into.CopyFrom(statistics(finite.reshape(1, -1)))
    else:
        into.min = into.max = into.mean = into.standard_deviation = into.l2_norm = math.nan
    into.zero_share = np.count_nonzero(values == 0) / values.size
    into.nan_count = int(np.isnan(values).sum())
    into.infinity_count = int(np.isinf(values).sum())
