"""Tensors of the contract to arrays and back; every fault of a tensor is found at once."""

from math import prod
from typing import Any

import numpy as np

from export.manifest import Manifest
from forward.v1 import forward_pb2 as pb
from server.errors import Violation, shown

NUMPY_TYPES: dict[int, np.dtype[Any]] = {
    pb.DATA_TYPE_FLOAT32: np.dtype("<f4"),
    pb.DATA_TYPE_UINT8: np.dtype("u1"),
}


def encode_into(tensor: pb.Tensor, array: np.ndarray) -> None:
    """Put an array of little-endian float32 into an empty tensor."""
    tensor.dtype = pb.DATA_TYPE_FLOAT32
    tensor.shape.extend(array.shape)
    tensor.data = array.tobytes()


class ImageCodec:
    """Reads the `images` field of a request, as the manifest and the batch limit allow it."""

    def __init__(self, manifest: Manifest, max_batch_images: int) -> None:
        self._shape = manifest.input_shape
        self._pixels = prod(manifest.input_shape)
        self._min = manifest.input_min
        self._max = manifest.input_max
        # Floats from 0 on are in the order of their bits; all others have larger bits.
        self._max_bits = np.float32(self._max).view(np.uint32) if self._min == 0 else None
        self._max_batch_images = max_batch_images

    def view(self, tensor: pb.Tensor) -> np.ndarray | None:
        """Return the images [N, H, W], as they came: a view of the request's bytes.

        None if anything is wrong; `faults` tells what.
        """
        shape, data = tuple(tensor.shape[:]), tensor.data
        dtype = NUMPY_TYPES.get(tensor.dtype)
        if dtype is None or len(data) != self._count(shape) * self._pixels * dtype.itemsize:
            return None
        values = np.frombuffer(data, dtype)
        if dtype.kind == "f" and not self._is_in_range(values):
            return None
        return values.reshape(-1, *self._shape)

    def _count(self, shape: tuple[int, ...]) -> int:
        """Return how many images have that shape; -1 if it is wrong."""
        if shape == self._shape:
            return 1
        if shape[1:] == self._shape and 1 <= shape[0] <= self._max_batch_images:
            return shape[0]
        return -1

    def _is_in_range(self, values: np.ndarray) -> bool:
        if self._max_bits is not None and values.view(np.uint32).max() <= self._max_bits:
            return True
        # NaN compares false.
        return bool(values.min() >= self._min and values.max() <= self._max)

    def faults(self, tensor: pb.Tensor) -> list[Violation]:
        """Name everything that is wrong with a tensor."""
        shape, dtype = tuple(tensor.shape[:]), NUMPY_TYPES.get(tensor.dtype)
        found: list[Violation] = []
        self._check_shape(shape, found)
        if dtype is None:
            name = _dtype_name(tensor.dtype)
            expected = "expected DATA_TYPE_FLOAT32 or DATA_TYPE_UINT8"
            found.append(Violation("images.dtype", f"{expected}, got {name}"))
        elif self._has_its_size(tensor, shape, dtype, found):
            self._check_values(tensor.data, dtype, found)
        return found

    def _check_shape(self, shape: tuple[int, ...], found: list[Violation]) -> None:
        height_width = ", ".join(map(str, self._shape))
        expected = f"expected [{height_width}] or [N, {height_width}]"
        if shape == self._shape:
            return
        if len(shape) != len(self._shape) + 1 or shape[1:] != self._shape:
            hint = ""
            if shape == (prod(self._shape),) or shape[1:] == (prod(self._shape),):
                hint = "; send the rows as they are, the model flattens them itself"
            found.append(Violation("images.shape", f"{expected}, got {shown(list(shape))}{hint}"))
        if len(shape) == len(self._shape) + 1 and not 1 <= shape[0] <= self._max_batch_images:
            advice = "split the batch" if shape[0] > 0 else "send at least one"
            found.append(
                Violation(
                    "images.shape",
                    f"expected 1 to {self._max_batch_images} images, got {shape[0]}; {advice}",
                )
            )

    def _has_its_size(
        self,
        tensor: pb.Tensor,
        shape: tuple[int, ...],
        dtype: np.dtype,
        found: list[Violation],
    ) -> bool:
        """Compare the number of bytes with what shape and dtype say."""
        if not 0 < len(shape) <= len(self._shape) + 1 or min(shape) < 0:
            return True  # the shape itself is refused, and means no number of bytes
        elements, size = prod(shape), len(tensor.data)
        if size == elements * dtype.itemsize:
            return True
        hint = "".join(
            f"; that is the size of {_dtype_name(other)}: set dtype to it"
            for other, numpy_type in NUMPY_TYPES.items()
            if elements and size == elements * numpy_type.itemsize
        )
        if elements and size == elements * 8:
            hint = "; that is the size of 64-bit floats: convert them to 32 bits"
        found.append(
            Violation(
                "images.data",
                f"expected {elements * dtype.itemsize} bytes for {_dtype_name(tensor.dtype)} of "
                f"shape {shown(list(shape))}, got {size}{hint}",
            )
        )
        return False

    def _check_values(self, data: bytes, dtype: np.dtype, found: list[Violation]) -> None:
        if dtype.kind != "f" or not data or len(data) % dtype.itemsize:
            return
        values = np.frombuffer(data, dtype)
        if self._is_in_range(values):
            return
        finite = np.isfinite(values)
        if not finite.all():
            nans = int(np.isnan(values).sum())
            infinities = int(values.size - finite.sum()) - nans
            found.append(
                Violation(
                    "images.data",
                    f"expected finite values, got {nans} NaN and {infinities} infinite, the first "
                    f"at element {int(np.argmin(finite))}",
                )
            )
            values = values[finite]
        if values.size and not (values.min() >= self._min and values.max() <= self._max):
            # Just above the maximum it is a rounding, not another scale.
            hint = "; send UINT8 or divide by 255" if 1.5 < values.max() <= 255 else ""
            found.append(
                Violation(
                    "images.data",
                    f"expected values from {self._min:g} to {self._max:g}, "
                    f"got {values.min():.9g} to {values.max():.9g}{hint}",
                )
            )


def _dtype_name(value: int) -> str:
    known = pb.DataType.DESCRIPTOR.values_by_number.get(value)
    return known.name if known else f"unknown data type {value}"
