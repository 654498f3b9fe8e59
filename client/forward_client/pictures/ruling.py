"""The lines of ruled and squared paper, removed from a picture of ink."""

import numpy as np

MIN_COVERAGE = 0.9  # of a row: a line reaches from edge to edge
MAX_THICKNESS = 0.03  # of the picture's side
MIN_STRENGTH = 0.15  # of the strongest ink: fainter lines are harmless


def without_ruling(distance: np.ndarray) -> np.ndarray:
    """Return distances from the paper, [height, width], without lines from edge to edge.

    Where ink crosses a line, on both of its sides, it stays. One line alone is no
    ruling: it may be a stroke.
    """
    mask = distance > MIN_STRENGTH * distance.max()
    rows, columns = (_bands(mask.mean(axis=axis)) for axis in (1, 0))
    if len(rows) + len(columns) < 2:
        return distance
    plain = _inpainted(_inpainted(distance, rows).T, columns).T
    return plain if plain.max() > MIN_STRENGTH * distance.max() else distance


def _bands(covered: np.ndarray) -> list[tuple[int, int]]:
    """Return the thin bands of rows that are covered: the rows before and behind each."""
    steps = np.diff((covered >= MIN_COVERAGE).astype(np.int8), prepend=0, append=0)
    starts, ends = np.flatnonzero(steps == 1), np.flatnonzero(steps == -1)
    max_thickness = max(1, MAX_THICKNESS * len(covered))
    # A row more on either side: a line's soft edge.
    return [
        (int(start) - 2, int(end) + 1)
        for start, end in zip(starts, ends, strict=True)
        if end - start <= max_thickness
    ]


def _inpainted(distance: np.ndarray, bands: list[tuple[int, int]]) -> np.ndarray:
    """Return distances whose bands of rows have the lesser of what lies on both sides."""
    inpainted = distance.copy()
    height = len(distance)
    for before, behind in bands:
        above = distance[before] if before >= 0 else np.zeros_like(distance[0])
        below = distance[behind] if behind < height else np.zeros_like(distance[0])
        inpainted[max(before + 1, 0) : behind] = np.minimum(above, below)
    return inpainted
