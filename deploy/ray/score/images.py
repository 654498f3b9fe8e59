"""Checks images as the server does, with its words."""

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from deploy.ray.score.chunks import BadRow, Chunk
from export.bundle.manifest import MAX_VERSION, Manifest
from server.engine.images import ImageDecoder, ReceivedTensor, TensorSchema

TYPES: dict[str, np.dtype[Any]] = {"FLOAT32": np.dtype("<f4"), "UINT8": np.dtype("u1")}
ONE = TensorSchema("shape", "dtype", "data", TYPES, takes_batch=False)
MANY = TensorSchema("shape", "dtype", "data", TYPES)


class ImageChecker:
    """Tells which images the model takes, and what is wrong with the others."""

    def __init__(self, manifest: Manifest) -> None:
        self.shape = manifest.input_shape
        self._min, self._max = manifest.input_min, manifest.input_max
        self._decoder = ImageDecoder(manifest, MAX_VERSION)  # of any number of images

    def wrong_array(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> str:
        """Return what is wrong with an array of images by its header; "" if nothing is."""
        if len(shape) == len(self.shape) + 1 and shape[0] == 0:
            shape = (1, *shape[1:])  # no image is wrong in it
        return self._reason(MANY, shape, dtype, None)

    def wrong_size(self, shape: tuple[int, ...], dtype: np.dtype[Any], got: int | str) -> str:
        """Return the reason of data that is shorter or longer than its header says."""
        return (
            f"data: expected {prod(shape) * dtype.itemsize} bytes for "
            f"{type_name(dtype)} of shape {list(shape)}, got {got}"
        )

    def wrong_image(self, image: np.ndarray) -> str:
        """Return what is wrong with one image, uint8 or float32 of any shape; "" if nothing is."""
        return self._reason(ONE, image.shape, image.dtype, image.tobytes())

    def chunk(
        self,
        part: str,
        images: np.ndarray,
        sources: Sequence[str],
        rows: Sequence[int],
        bad: Sequence[BadRow] = (),
    ) -> Chunk:
        """Return a chunk of the images [N, H, W], uint8 or floating, that the model takes.

        Those that it does not take are added to the bad ones.
        """
        images = as_sent(images)
        if images.dtype == np.uint8:
            return Chunk(part, images, sources, rows, bad)
        pixels = images.reshape(len(images), -1)
        good = ((pixels >= self._min) & (pixels <= self._max)).all(axis=1)  # False for NaN
        if good.all():
            return Chunk(part, images, sources, rows, bad)
        kept = np.flatnonzero(good).tolist()
        more = [
            BadRow(sources[at], rows[at], self.wrong_image(images[at]))
            for at in np.flatnonzero(~good).tolist()
        ]
        return Chunk(
            part,
            images[good],
            [sources[at] for at in kept],
            [rows[at] for at in kept],
            sorted([*bad, *more], key=lambda one: one.row or 0),
        )

    def _reason(
        self,
        schema: TensorSchema,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        data: bytes | None,
    ) -> str:
        received = ReceivedTensor(schema, tuple(map(int, shape)), type_name(dtype), data)
        found = self._decoder.violations(received)
        return "; ".join(f"{one.field}: {one.description}" for one in found)


def type_name(dtype: np.dtype[Any]) -> str:
    """Return the name of a type as it is sent: floating values are sent as FLOAT32."""
    return "FLOAT32" if dtype.kind == "f" else dtype.name.upper()


def as_sent(images: np.ndarray) -> np.ndarray:
    """Return images as the client sends them, uint8 or float32; too large for it: infinite."""
    if images.dtype == np.uint8:
        return images
    with np.errstate(over="ignore"):
        return images.astype(np.float32, copy=False)
