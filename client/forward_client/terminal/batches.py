"""The images of several files as batches."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from forward_client.output import complain
from forward_client.pictures import read_images


@dataclass(frozen=True)
class Source:
    """Where an image comes from: its file, its place in the file, what made it hard to read."""

    file: str
    index: int
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Batch:
    """The images of a request, [N, H, W], and where each comes from; `first` is the first's number.

    The images of all files have numbers from 0, in the order of the files.
    """

    pixels: np.ndarray
    sources: tuple[Source, ...]
    first: int


def read_batches(paths: Sequence[Path], max_images: int) -> list[Batch]:
    """Return the images of all files in batches of at most so many; 0 is any number.

    Raises:
        PictureError: a file can't be read.
    """
    arrays, sources = [], []
    for path in paths:
        images = read_images(path)
        for warning in images.warnings:
            complain(f"{path}: hard to read: {warning}")
        arrays.append(images.pixels)
        sources += [Source(str(path), n, images.warnings) for n in range(len(images.pixels))]
    if len({array.dtype for array in arrays}) > 1:  # the server divides by 255 to the same bits
        arrays = [_floating(array) for array in arrays]
    pixels = np.concatenate(arrays)
    size = max_images or len(pixels)
    return [
        Batch(pixels[start : start + size], tuple(sources[start : start + size]), start)
        for start in range(0, len(pixels), size)
    ]


def _floating(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float32) / np.float32(255) if array.dtype == np.uint8 else array
