"""Which epochs of a training leave a snapshot of the parameters in the bundle."""

from collections.abc import Mapping

import numpy as np

from export.bundle.snapshots import half_precision


def kept_epochs(epochs: int, most: int) -> tuple[int, ...]:
    """Return the epochs to keep, ascending, at most so many; 0 is before the training.

    They are 0, 1, the last, and between these each about the same factor after the one before:
    dense at first, where much changes. A training of fewer epochs keeps all. None are kept if not
    even the first and the last may be.
    """
    count = min(most, epochs + 1)
    if count < 2:
        return ()
    kept = [0] if count == 2 else [0, 1]
    for left in range(count - len(kept), 0, -1):
        before = max(kept[-1], 1)
        step = round(before * (epochs / before) ** (1 / left))
        kept.append(max(step, kept[-1] + 1))
    return tuple(kept)


def snapshot_of(weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray] | None:
    """Return weights as a snapshot has them; None if half precision can't hold them."""
    half = half_precision(weights)
    return half if all(np.isfinite(array).all() for array in half.values()) else None
