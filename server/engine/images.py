"""The images of a request: a view of its bytes, or every violation at once."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

import numpy as np

from export.bundle.manifest import Manifest
from server.errors import Violation, quote


@dataclass(frozen=True)
class TensorSchema:
    """How a protocol sends a tensor of images: the field paths and names for its violations."""

    shape: str  # path of the field
    dtype: str
    data: str
    types: Mapping[str, np.dtype[Any]]
    takes_one: bool = True  # [H, W] for one image, not only [N, H, W]
    takes_batch: bool = True  # [N, H, W], not only [H, W]
    unit: Literal["bytes", "elements"] = "bytes"  # that the data is counted in


@dataclass(frozen=True)
class ReceivedTensor:
    """A tensor of images as received, its type by name; None as data is not checked."""

    form: TensorSchema
    shape: tuple[int, ...]
    dtype: str
    data: bytes | memoryview | None


class ImageDecoder:
    """Turns a request's tensor into images, as the manifest and the batch limit allow it."""

    def __init__(self, manifest: Manifest, max_batch_images: int) -> None:
        self._shape = manifest.input_shape
        self._pixels = prod(manifest.input_shape)
        self._min = manifest.input_min
        self._max = manifest.input_max
        # Floats from 0 on are in the order of their bits; all others have larger bits.
        self._max_bits = np.float32(self._max).view(np.uint32) if self._min == 0 else None
        self._max_batch_images = max_batch_images

    def view(
        self, shape: tuple[int, ...], dtype: np.dtype[Any] | None, data: bytes | memoryview
    ) -> np.ndarray | None:
        """Return the images [N, H, W] of that shape and type: a view of the data.

        None if anything is wrong, also if the type is None; `violations` returns what.
        """
        if dtype is None or len(data) != self._count(shape) * self._pixels * dtype.itemsize:
            return None
        values = np.frombuffer(data, dtype)
        if dtype.kind == "f" and not self._is_in_range(values):
            return None
        return values.reshape(-1, *self._shape)

    def is_batch(self, shape: tuple[int, ...]) -> bool:
        """Tell if a shape has the dimension of the batch."""
        return len(shape) == len(self._shape) + 1

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

    def violations(self, sent: ReceivedTensor) -> list[Violation]:
        """Return everything that is wrong with a tensor of any protocol."""
        found: list[Violation] = []
        self._check_shape(sent, found)
        dtype = sent.form.types.get(sent.dtype)
        if dtype is None:
            expected = f"expected {' or '.join(sent.form.types)}"
            found.append(Violation(sent.form.dtype, f"{expected}, got {sent.dtype}"))
        elif sent.data is not None and self._has_its_size(sent, sent.data, dtype, found):
            self._check_values(sent.form.data, sent.data, dtype, found)
        return found

    def _check_shape(self, sent: ReceivedTensor, found: list[Violation]) -> None:
        shape, form = sent.shape, sent.form
        height_width = ", ".join(map(str, self._shape))
        if not form.takes_batch:
            if shape != self._shape:
                text = f"expected [{height_width}], got {quote(list(shape))}"
                found.append(Violation(form.shape, text))
            return
        if shape == self._shape:
            if not form.takes_one:
                text = f"expected [N, {height_width}], got [{height_width}]; one image has N = 1"
                found.append(Violation(form.shape, text))
            return
        if not self.is_batch(shape) or shape[1:] != self._shape:
            one = f"[{height_width}] or " if form.takes_one else ""
            hint = ""
            if shape == (prod(self._shape),) or shape[1:] == (prod(self._shape),):
                hint = "; send the rows as they are, the model flattens them itself"
            text = f"expected {one}[N, {height_width}], got {quote(list(shape))}{hint}"
            found.append(Violation(form.shape, text))
        if self.is_batch(shape) and not 1 <= shape[0] <= self._max_batch_images:
            advice = "split the batch" if shape[0] > 0 else "send at least one"
            text = f"expected 1 to {self._max_batch_images} images, got {shape[0]}; {advice}"
            found.append(Violation(form.shape, text))

    def _has_its_size(
        self,
        sent: ReceivedTensor,
        data: bytes | memoryview,
        dtype: np.dtype,
        found: list[Violation],
    ) -> bool:
        """Compare the size of the data with what shape and type say."""
        shape, form = sent.shape, sent.form
        if not 0 < len(shape) <= len(self._shape) + 1 or min(shape) < 0:
            return True  # the shape itself is refused, and means no size
        elements, size = prod(shape), len(data)
        if size == elements * dtype.itemsize:
            return True
        in_bytes = form.unit == "bytes"
        unit_bytes = 1 if in_bytes else dtype.itemsize
        hint = _size_hint(form, elements, size) if in_bytes and elements else ""
        found.append(
            Violation(
                form.data,
                f"expected {elements * dtype.itemsize // unit_bytes} {form.unit} for {sent.dtype} "
                f"of shape {quote(list(shape))}, got {size // unit_bytes}{hint}",
            )
        )
        return False

    def _check_values(
        self, field: str, data: bytes | memoryview, dtype: np.dtype, found: list[Violation]
    ) -> None:
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
                    field,
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
                    field,
                    f"expected values from {self._min:g} to {self._max:g}, "
                    f"got {values.min():.9g} to {values.max():.9g}{hint}",
                )
            )


def _size_hint(form: TensorSchema, elements: int, size: int) -> str:
    """Tell which type has that many bytes."""
    if size == elements * 8:
        return "; that is the size of 64-bit floats: convert them to 32 bits"
    field = form.dtype.rsplit(".", 1)[-1]
    return "".join(
        f"; that is the size of {name}: set {field} to it"
        for name, dtype in form.types.items()
        if size == elements * dtype.itemsize
    )
