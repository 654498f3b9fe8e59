"""Images to compare on, from NumPy's format or MNIST's own."""

import gzip
import struct
from math import prod
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from export.compare import ImageSet
from export.errors import ImagesError
from export.manifest import Manifest

IDX_UINT8_3D = b"\x00\x00\x08\x03"  # how MNIST's image files begin: bytes, in three dimensions


def read_images(path: Path, manifest: Manifest) -> ImageSet:
    """Read images, uint8 or float32 [N, H, W], as FLOAT32 in the manifest's range.

    Formats: NumPy's `.npy`, and the IDX of MNIST's files, gzipped or not.

    Raises:
        ImagesError: it can't be read, or holds no images of this model.
    """
    try:
        images = _read(path)
    except (OSError, ValueError, EOFError, BadZipFile, struct.error) as error:
        raise ImagesError(f"{path}: can't be read as .npy or IDX: {error}") from error
    if not isinstance(images, np.ndarray):
        raise ImagesError(f"{path}: expected one array, got an archive of several")
    if images.shape[1:] != manifest.input_shape or images.dtype not in (np.uint8, np.float32):
        shape = ", ".join(map(str, manifest.input_shape))
        raise ImagesError(
            f"{path}: expected uint8 or float32 of shape [N, {shape}], "
            f"got {images.dtype} of shape {list(images.shape)}"
        )
    if len(images) == 0:
        raise ImagesError(f"{path}: no images; a comparison of nothing would prove nothing")
    if images.dtype == np.uint8:
        images = images / np.float32(255)
    if not ((images >= manifest.input_min) & (images <= manifest.input_max)).all():
        raise ImagesError(
            f"{path}: expected values from {manifest.input_min:g} to {manifest.input_max:g}, "
            f"got {images.min():g} to {images.max():g}"
        )
    return ImageSet(path.name, images)


def _read(path: Path) -> np.ndarray:
    with path.open("rb") as file:
        is_gzip = file.read(2) == b"\x1f\x8b"
    with gzip.open(path) if is_gzip else path.open("rb") as file:
        if file.read(4) != IDX_UINT8_3D:
            return np.load(path, allow_pickle=False)
        shape = struct.unpack(">3I", file.read(12))
        data = file.read()
    if len(data) != prod(shape):
        raise ValueError(f"says that it holds {list(shape)} bytes, holds {len(data)}")
    return np.frombuffer(data, np.uint8).reshape(shape)
