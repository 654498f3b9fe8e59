"""Images to compare on, from files of NumPy or MNIST."""

import gzip
import hashlib
import io
import struct
from math import prod
from pathlib import Path

import numpy as np

from export.bundle.manifest import Manifest
from export.errors import ImagesError
from export.output import printable
from export.parity.compare import ImageSet

GZIP = b"\x1f\x8b"
NUMPY = b"\x93NUMPY"
IDX = b"\x00\x00\x08\x03"  # how MNIST's image files begin: bytes, in three dimensions


def read_images(path: Path, manifest: Manifest) -> ImageSet:
    """Read images, float32 [N, H, W] or uint8, which are divided by 255; return FLOAT32.

    Formats: NumPy's `.npy` and the IDX of MNIST's files, gzipped or not. The set is
    named after the file and its content, so that no two share a record.

    Raises:
        ImagesError: the file can't be read, or its images do not fit the model.
    """
    try:
        data = path.read_bytes()
        images = _decode(data)
    except OSError as error:
        raise ImagesError(f"{path}: can't be read: {error.strerror or error}") from error
    except Exception as error:  # the readers raise many types for damaged bytes
        raise ImagesError(f"{path}: can't be read as .npy or IDX images: {error}") from error
    if images.shape[1:] != manifest.input_shape or images.dtype not in (np.uint8, np.float32):
        shape = ", ".join(map(str, manifest.input_shape))
        raise ImagesError(
            f"{path}: expected uint8 or float32 of shape [N, {shape}], "
            f"got {images.dtype} of shape {list(images.shape)}"
        )
    if len(images) == 0:
        raise ImagesError(f"{path}: no images; expected at least one")
    if images.dtype == np.uint8:
        images = images / np.float32(255)
    if not ((images >= manifest.input_min) & (images <= manifest.input_max)).all():
        raise ImagesError(
            f"{path}: expected values from {manifest.input_min:g} to {manifest.input_max:g}, "
            f"got {images.min():g} to {images.max():g}"
        )
    return ImageSet(f"{printable(path.name)} {hashlib.sha256(data).hexdigest()[:8]}", images)


def _decode(data: bytes) -> np.ndarray:
    if data.startswith(GZIP):
        data = gzip.decompress(data)
    if data.startswith(NUMPY):
        array: np.ndarray = np.load(io.BytesIO(data), allow_pickle=False)
        return array
    if not data.startswith(IDX):
        raise ValueError("the file begins like neither format")
    shape = struct.unpack_from(">3I", data, len(IDX))
    pixels = data[len(IDX) + 12 :]  # after three numbers of 4 bytes
    if len(pixels) != prod(shape):
        raise ValueError(f"expected {list(shape)} bytes by its header, got {len(pixels)}")
    return np.frombuffer(pixels, np.uint8).reshape(shape)
