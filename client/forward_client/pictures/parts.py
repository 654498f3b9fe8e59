"""The connected parts of a mask of ink: the digit, frames and borders around it, specks."""

from dataclasses import dataclass

import numpy as np

from forward_client.pictures.components import Components, label
from forward_client.pictures.strokes import stroke_width

MASK_PIXELS = 512 * 512  # of the mask whose parts are analysed
MIN_DIGIT = 0.1  # of the sheet's longer side; what is smaller may be a speck
EDGE_CONTACT = 0.6  # of an edge: what follows more of it is a frame or a scanner's border
FLAT_CONTACT = 0.7  # of its own length: what lies on an edge, and is no thicker than
FLAT_SIDE = 0.1  # of the sheet, is one as well
FRAME_SIDE = 0.6  # of the sheet's sides, and at most so much of its box filled:
FRAME_FILL = 0.4
NEAR = 0.06  # of the largest part's longer side: a part within twice that belongs to it,
MIN_NEAR = 0.04  # if it is no smaller than that
COMPANION = 0.25  # of the largest part's longer side; a smaller part is a speck
SECOND_DIGIT = 0.6  # of the largest part's height: a part beside it may be a second digit
BLOB = 0.25  # of its longer side: no stroke is as wide, but a shadow is


@dataclass(frozen=True)
class Parts:
    """What a mask shows: the digit and the rest."""

    factor: int  # pixels of the picture along a side of one of the mask
    digit: np.ndarray  # bool: where the mask shows the digit
    rest: np.ndarray  # bool: where it shows anything else
    longest: int  # longer side of the digit's largest part, in pixels of the mask
    is_blob: bool  # a part is too wide for a stroke
    touches_edge: bool
    has_several: bool  # digits, probably
    has_border: bool  # a frame or a border was ignored
    specks: int


def analyse(mask: np.ndarray) -> Parts:
    """Return what a mask shows."""
    factor = max(1, int(np.ceil((mask.size / MASK_PIXELS) ** 0.5)))
    small = _max_pooled(mask, factor)
    parts = label(small)
    if not len(parts):
        return Parts(factor, small, small, 0, False, False, False, False, 0)
    borders = _borders(parts)
    if borders.all():
        is_blob = _has_blob(parts, borders)
        return Parts(factor, small & False, small, 0, is_blob, False, False, True, 0)
    longer = np.where(borders, 0, parts.sides.max(axis=1))
    largest = int(longer.argmax())
    chosen = _digit_parts(parts, longer, largest)
    return Parts(
        factor,
        parts.mask(chosen),
        parts.mask(~chosen),
        int(longer[largest]),
        _has_blob(parts, borders | (np.arange(len(parts)) == largest)),
        bool((parts.contact()[chosen] > 0).any()),
        _has_second_digit(parts, chosen, largest),
        bool(borders.any()),
        int((~chosen & ~borders).sum()),
    )


def _digit_parts(parts: Components, longer: np.ndarray, largest: int) -> np.ndarray:
    """Return which parts are the digit's: the largest, what is near it, what is nearly as large."""
    chosen: np.ndarray = longer >= COMPANION * longer[largest]
    candidates = parts.mask(longer >= max(1, MIN_NEAR * longer[largest]))
    joined = label(dilated(candidates, max(1, round(NEAR * longer[largest])))).labels
    groups = np.unique(joined[parts.mask(chosen)])
    chosen[np.unique(parts.labels[candidates & np.isin(joined, groups)])] = True
    return chosen


def _borders(parts: Components) -> np.ndarray:
    """Return which parts are frames or borders of a scan, by what else there is."""
    sides, shape = parts.sides, np.array(parts.labels.shape)
    contact = parts.contact()
    along = contact * shape[[1, 0, 1, 0]] >= FLAT_CONTACT * sides[:, [1, 0, 1, 0]]
    flat = along & (sides[:, [0, 1, 0, 1]] <= FLAT_SIDE * shape[[0, 1, 0, 1]])
    alone = (contact.max(axis=1) < EDGE_CONTACT) & ~flat.any(axis=1)
    others = sides.max(axis=1) >= MIN_DIGIT * shape.max()
    borders: np.ndarray = ~alone & bool((alone & others).any())
    wide = (sides >= FRAME_SIDE * shape).all(axis=1)
    open_ = parts.areas < FRAME_FILL * sides.prod(axis=1)
    for number in np.flatnonzero(wide & open_):
        top, left, bottom, right = parts.boxes[number]
        within = parts.labels[top : bottom + 1, left : right + 1]
        outside = label(np.pad(within != number, 1, constant_values=True)).labels
        enclosed = within[outside[1:-1, 1:-1] != outside[0, 0]]
        inside = np.zeros(len(parts), bool)
        inside[enclosed[enclosed >= 0]] = True
        inside[number] = False
        if (inside & others & (sides.max(axis=1) >= 0.2 * sides[number].max())).any():
            borders[number] = True
    return borders


def _has_blob(parts: Components, which: np.ndarray) -> bool:
    """Return whether one of some parts is large and too wide for a stroke."""
    # A digit may fill the picture; a shadow that does follows an edge.
    spans = np.asarray((parts.sides > 0.9 * np.array(parts.labels.shape)).all(axis=1))
    tight = spans & (parts.contact().max(axis=1) < 0.9)
    for number in np.flatnonzero(which & ~tight):
        top, left, bottom, right = parts.boxes[number]
        inside = parts.labels[top : bottom + 1, left : right + 1] == number
        longest = max(inside.shape)
        if longest >= 0.4 * max(parts.labels.shape) and (
            stroke_width(inside.astype(np.float32)) > BLOB * longest
        ):
            return True
    return False


def _has_second_digit(parts: Components, chosen: np.ndarray, largest: int) -> bool:
    """Return whether another part stands beside the largest, nearly as high."""
    boxes = parts.boxes
    beside = (boxes[:, 1] > boxes[largest, 3]) | (boxes[:, 3] < boxes[largest, 1])
    high = parts.sides[:, 0] >= SECOND_DIGIT * parts.sides[largest, 0]
    return bool((chosen & beside & high).any())


def _max_pooled(mask: np.ndarray, factor: int) -> np.ndarray:
    """Return a mask of fewer pixels, each set where one of those that it replaces was."""
    if factor == 1:
        return mask
    rows, columns = (-side % factor for side in mask.shape)
    padded = np.pad(mask, ((0, rows), (0, columns)))
    blocks = padded.reshape(padded.shape[0] // factor, factor, padded.shape[1] // factor, factor)
    return np.asarray(blocks.any(axis=(1, 3)))


def upsampled(mask: np.ndarray, factor: int, shape: tuple[int, ...]) -> np.ndarray:
    """Return a pooled mask at the size of the picture."""
    return mask.repeat(factor, axis=0).repeat(factor, axis=1)[: shape[0], : shape[1]]


def dilated(mask: np.ndarray, pixels: int) -> np.ndarray:
    """Return a mask dilated by pixels on every side."""
    for _ in range(2):
        sums = np.cumsum(np.pad(mask, ((pixels + 1, pixels), (0, 0))), axis=0, dtype=np.int32)
        mask = (sums[2 * pixels + 1 :] > sums[: -2 * pixels - 1]).T
    return mask
