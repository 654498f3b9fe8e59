"""What travels from the readers to the model: the images of one output file."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class BadRow:
    """What can't be scored, and why.

    `row` is its number in the file, None for the file as a whole; `rows` is how many there are
    from it on.
    """

    source: str
    row: int | None
    reason: str
    rows: int = 1


@dataclass(frozen=True)
class Chunk:
    """Images that are scored together, and what is bad among them.

    `sources` and `rows` say of each image where it comes from. With `failure` nothing was read,
    through no fault of the data: it is to be tried again.
    """

    part: str  # name of the output file, without its ending
    images: np.ndarray | None = None  # uint8 or float32 [N, H, W]
    sources: Sequence[str] = ()
    rows: Sequence[int] = ()
    bad: Sequence[BadRow] = field(default=())
    failure: str = ""


def part_name(file: int, row: int) -> str:
    """Return the name of the output file of the chunk that begins at a row of a file."""
    return f"part-{file:06d}-{row:012d}"
