"""Statistics of each unit of a stage over the images of a request."""

from typing import NamedTuple

import numpy as np


class UnitStatistics(NamedTuple):
    """Of each unit, float64 arrays of the shape of the stage's output for one image.

    Values that are not finite are left out, as in the statistics of a stage; without a finite one
    they are NaN, but for the share of zeros, which is of all images.
    """

    mean: np.ndarray
    standard_deviation: np.ndarray
    min: np.ndarray
    max: np.ndarray
    zero_share: np.ndarray


def unit_statistics(values: np.ndarray) -> UnitStatistics:
    """Return the statistics of each unit of a stage's output, [N, …], summed in float64."""
    finite = np.isfinite(values)
    counted: bool | np.ndarray = True if finite.all() else finite
    counts = np.count_nonzero(finite, axis=0)
    with np.errstate(invalid="ignore"):  # 0 / 0 is NaN
        mean = values.sum(axis=0, dtype=np.float64, where=counted) / counts
        apart = np.subtract(values, mean, where=counted, out=np.zeros(values.shape))
        deviation = np.sqrt(np.square(apart, out=apart).sum(axis=0) / counts)
    none = counts == 0
    lowest, highest = (
        extreme(values, axis=0, where=counted, initial=initial).astype(np.float64)
        for extreme, initial in ((np.min, np.inf), (np.max, -np.inf))
    )
    return UnitStatistics(
        mean,
        deviation,
        np.where(none, np.nan, lowest),
        np.where(none, np.nan, highest),
        np.count_nonzero(values == 0, axis=0) / len(values),
    )
