"""Gathers the images of requests as the pixels of a run."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np

UINT8_MAX = np.float32(255)
MIN_ALONE_IMAGES = 64  # images: from here on a copy costs more than a call or a run of its own


def pixels_of(images: np.ndarray) -> np.ndarray:
    """Return a request's images as pixels, FLOAT32 in 0..1, as a run computes them."""
    if images.dtype != np.uint8:
        return images
    return np.true_divide(images, UINT8_MAX, dtype=np.float32)


class StagedRun(NamedTuple):
    """The pixels of a run, and how many requests they are of."""

    pixels: np.ndarray
    requests: int


class PixelBuffer:
    """Memory for the pixels of a run, used again for the next: fresh pages cost more than a copy.

    One run at a time; what it gives is overwritten by the next.
    """

    def __init__(self, max_images: int, shape: tuple[int, ...]) -> None:
        self._pixels = np.empty((max_images, *shape), np.float32)

    def runs(self, requests: Sequence[np.ndarray]) -> Iterator[StagedRun]:
        """Yield the images of all requests, in order, as the pixels of one run or several.

        Each is to be used before the next is asked for. Large requests that are
        FLOAT32 run alone, where they are; the others are gathered.
        """
        if len(requests) == 1:  # the fast path
            yield StagedRun(self._alone(requests[0]), 1)
            return
        for alone, several in groupby(requests, key=_runs_alone):
            if alone:
                yield from (StagedRun(images, 1) for images in several)
            else:
                together = list(several)
                yield StagedRun(self.gather(together), len(together))

    def gather(self, requests: Sequence[np.ndarray]) -> np.ndarray:
        """Return the images of all requests as pixels, FLOAT32 [N, H, W] in 0..1.

        Each request is UINT8, which is divided by 255 on its way into the
        buffer, or FLOAT32, which is copied; a single FLOAT32 one is returned as it is.
        """
        if len(requests) == 1:
            return self._alone(requests[0])
        start = 0
        for images in _joined(requests):
            pixels = self._pixels[start : start + len(images)]
            if images.dtype == np.uint8:
                np.true_divide(images, UINT8_MAX, out=pixels, dtype=np.float32)
            else:
                np.copyto(pixels, images)
            start += len(images)
        return self._pixels[:start]

    def _alone(self, images: np.ndarray) -> np.ndarray:
        if images.dtype != np.uint8:
            return images
        pixels = self._pixels[: len(images)]
        np.true_divide(images, UINT8_MAX, out=pixels, dtype=np.float32)
        return pixels


def _joined(requests: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    """Yield all images in order, small requests of a type put together: a call each costs more."""
    for (_, is_large), alike in groupby(requests, key=_kind):
        several = list(alike)
        if is_large or len(several) == 1:
            yield from several
        else:
            yield np.concatenate(several)


def _kind(images: np.ndarray) -> tuple[np.dtype, bool]:
    return images.dtype, len(images) >= MIN_ALONE_IMAGES


def _runs_alone(images: np.ndarray) -> bool:
    dtype, is_large = _kind(images)
    return is_large and dtype != np.uint8
