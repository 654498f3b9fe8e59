"""From requests' images to the pixels of a run."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

import numpy as np

UINT8_MAX = np.float32(255)


LEAST_ALONE = 64  # images: from here on a copy costs more than a run of its own


class PixelBuffer:
    """Memory for the pixels of a run, used again for the next: fresh pages cost more than a copy.

    One run at a time; what it gives is overwritten by the next.
    """

    def __init__(self, max_images: int, shape: tuple[int, ...]) -> None:
        self._pixels = np.empty((max_images, *shape), np.float32)

    def runs(self, requests: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
        """Yield the images of all requests, in order, as the pixels of one run or several.

        Each is to be used before the next is asked for. Large requests that are
        FLOAT32 run alone, where they are; the others are gathered, and cut where
        the buffer is full.
        """
        if len(requests) == 1 and len(requests[0]) <= len(self._pixels):  # the short way
            yield self.gather(requests)
            return
        for alone, several in groupby(requests, key=_runs_alone):
            if alone:
                yield from several
            else:
                for pieces in self._portions(several):
                    yield self.gather(pieces)

    def _portions(self, requests: Iterable[np.ndarray]) -> Iterator[list[np.ndarray]]:
        """Yield the images in order, each time as many as the buffer takes."""
        pieces: list[np.ndarray] = []
        room = len(self._pixels)
        for images in requests:
            rest = images
            while len(rest) >= room:
                yield [*pieces, rest[:room]]
                rest, pieces, room = rest[room:], [], len(self._pixels)
            if len(rest):
                pieces.append(rest)
                room -= len(rest)
        if pieces:
            yield pieces

    def gather(self, requests: Sequence[np.ndarray]) -> np.ndarray:
        """Return the images of all requests as pixels, FLOAT32 [N, H, W] in 0..1.

        Each request is UINT8, which is divided by 255 on its way into the
        buffer, or FLOAT32, which is copied; a single FLOAT32 one is returned as it is.
        """
        if len(requests) == 1:
            return self._alone(requests[0])
        start = 0
        for dtype, alike in groupby(requests, key=lambda images: images.dtype):
            several = list(alike)
            # Small requests are put together before they are converted, all at once.
            images = several[0] if len(several) == 1 else np.concatenate(several)
            pixels = self._pixels[start : start + len(images)]
            if dtype == np.uint8:
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


def _runs_alone(images: np.ndarray) -> bool:
    return images.dtype != np.uint8 and len(images) >= LEAST_ALONE
