"""Connected parts of a mask: where each lies, how large it is, which edges it follows."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Components:
    """The parts of a mask, pixels joined along edges and corners, by their number."""

    labels: np.ndarray  # intp [height, width]: the part of each pixel, -1 outside the mask
    areas: np.ndarray  # [parts], pixels
    boxes: np.ndarray  # [parts, 4]: first row, first column, last row, last column

    def __len__(self) -> int:
        """Return the number of parts."""
        return len(self.areas)

    @property
    def sides(self) -> np.ndarray:
        """Height and width of each box, [parts, 2]."""
        sides: np.ndarray = self.boxes[:, 2:] - self.boxes[:, :2] + 1
        return sides

    def contact(self) -> np.ndarray:
        """Return how much of each edge of the picture a part covers, 0..1, [parts, 4]."""
        edges = (self.labels[0], self.labels[:, 0], self.labels[-1], self.labels[:, -1])
        shares = [np.bincount(e[e >= 0], minlength=len(self)) / len(e) for e in edges]
        return np.stack(shares, axis=1)

    def mask(self, parts: np.ndarray) -> np.ndarray:
        """Return where the parts are, given as numbers or as a choice, bool [height, width]."""
        chosen = np.zeros(len(self) + 1, bool)  # the last one: outside the mask
        chosen[:-1][parts] = True
        found: np.ndarray = chosen[self.labels]
        return found


def label(mask: np.ndarray) -> Components:
    """Return the connected parts of a mask, bool [height, width].

    Runs of pixels in a row are joined with those that they touch in the next
    row: every run takes the least number among its neighbours until none changes.
    """
    height, width = mask.shape
    stride = width + 2  # so that no run touches one of another row in the flat order
    padded = np.zeros((height, stride), np.int8)
    padded[:, 1:-1] = mask
    steps = np.diff(padded.ravel(), prepend=0)
    starts, ends = np.flatnonzero(steps == 1), np.flatnonzero(steps == -1)  # ends are exclusive
    first = np.searchsorted(ends, starts + stride, side="left")
    behind = np.searchsorted(starts, ends + stride, side="right")
    counts = np.maximum(behind - first, 0)
    upper = np.repeat(np.arange(len(starts)), counts)
    lower = np.arange(counts.sum()) + np.repeat(first - (np.cumsum(counts) - counts), counts)
    parents = _join(len(starts), upper, lower)
    roots, numbers = np.unique(parents, return_inverse=True)
    rows, lengths = starts // stride, ends - starts
    boxes = np.empty((len(roots), 4), np.intp)
    boxes[:, :2], boxes[:, 2:] = max(height, width), -1
    for column, values in ((0, rows), (1, starts % stride - 1)):
        np.minimum.at(boxes[:, column], numbers, values)
    for column, values in ((2, rows), (3, ends % stride - 2)):
        np.maximum.at(boxes[:, column], numbers, values)
    labels = np.full((height, width), -1, np.intp)
    labels[mask] = np.repeat(numbers, lengths)
    areas = np.bincount(numbers, weights=lengths, minlength=len(roots)).astype(np.intp)
    return Components(labels, areas, boxes)


def _join(count: int, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return for each of `count` runs the least run that pairs (one, other) join it with."""
    parents = np.arange(count)
    while True:
        least = np.minimum(parents[one], parents[other])
        before = parents.copy()
        for runs in (one, other):
            np.minimum.at(parents, before[runs], least)
        while not np.array_equal(shorter := parents[parents], parents):
            parents = shorter
        if np.array_equal(parents, before):
            return parents
