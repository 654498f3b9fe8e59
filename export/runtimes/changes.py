"""Changes of stages' outputs in a run, as every runtime takes them."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np


class StageChanges(NamedTuple):
    """The changes of K elements of one stage's output in a run, arrays [K].

    With x the output of all images before, flattened row-major, [N · size], element `at[k]` becomes

        min(max(scale[k] · x[source[k]] + shift[k], low[k]), high[k])

    `at` and `source` are int64, no position is twice in `at`; the others are float32, `scale` and
    `shift` finite. With scale 1, shift -0.0, low -∞ and high ∞ an element keeps its bits.
    """

    at: np.ndarray
    source: np.ndarray
    scale: np.ndarray
    shift: np.ndarray
    low: np.ndarray
    high: np.ndarray


Changes = Mapping[str, StageChanges]  # by stage name; a stage that is missing is not changed

NONE = StageChanges(
    *(np.empty(0, np.int64) for _ in range(2)), *(np.empty(0, np.float32) for _ in range(4))
)


def change_input(stage: str, part: str) -> str:
    """Return the name of a graph's input: a part of the changes of a stage."""
    return f"{stage}.{part}"


def changed_value(value: str) -> str:
    """Return the name of a graph's value after its changes."""
    return f"{value}.changed"
