"""Files read as arrays: pictures in every format of Pillow's, and NumPy files."""

import stat
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from forward_client.errors import PictureError

MAX_PIXELS = 1024 * 1024  # of a picture after reading; more would only cost memory
SAMPLE_PIXELS = 256 * 256  # that the background of a transparent picture is chosen by
MIN_CONTRAST = 0.1  # of the full range; below it a picture counts as blank


def read_array(path: Path) -> np.ndarray:
    """Return the array of a NumPy file.

    Raises:
        PictureError: the file can't be read, or is an archive of several arrays.
    """
    _check_file(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of headers that Python 2 wrote
            # Mapped first: a header that promises more than the file has is refused
            # before any memory is taken for it.
            mapped = np.load(path, mmap_mode="r", allow_pickle=False)
            is_archive = not isinstance(mapped, np.ndarray)
            array = np.empty(0) if is_archive else np.array(mapped)
            if is_archive:
                mapped.close()
    except Exception as error:  # a damaged file makes NumPy raise anything
        raise PictureError(
            f"{path}: can't be read as a NumPy file: {_reason(error)}; expected a file "
            "written by numpy.save"
        ) from error
    if is_archive:
        raise PictureError(
            f"{path}: expected one array, got an archive of several (.npz); save one of them "
            "with numpy.save"
        )
    return array


def read_picture(path: Path) -> np.ndarray:
    """Return a picture as float32 [height, width, channels] in 0..1, without transparency.

    Of an animation it is the first frame.

    Raises:
        PictureError: the file can't be read.
    """
    _check_file(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata: they do not matter here
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as opened:
                return _as_array(ImageOps.exif_transpose(opened))
    except Exception as error:  # a damaged file makes Pillow raise anything
        raise PictureError(
            f"{path}: can't be read as a picture: {_reason(error)}; expected a complete file in "
            "PNG, JPEG or another format that Pillow reads, or .npy"
        ) from error


def _reason(error: Exception) -> str:
    """Return the text of an error, on one line, or its kind if it has none."""
    return " ".join(str(error).split()) or type(error).__name__


def _check_file(path: Path) -> None:
    """Refuse anything but a regular file: reading a pipe or a device might never end."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        raise PictureError(f"{path}: can't be read: {_reason(error)}") from error
    if stat.S_ISREG(mode):
        return
    kind = "a folder" if stat.S_ISDIR(mode) else "a pipe or a device"
    hint = "give the files in it" if stat.S_ISDIR(mode) else "save its content to a file first"
    raise PictureError(f"{path}: can't be read: expected a file, got {kind}; {hint}")


def _as_array(picture: Image.Image) -> np.ndarray:
    picture.load()
    if picture.mode[0] in "IF":  # more than 8 bits a pixel
        return _in_range(np.asarray(picture, dtype=np.float64))
    opaque = _opaque(picture)
    scale = (MAX_PIXELS / (opaque.width * opaque.height)) ** 0.5
    if scale < 1:
        size = (max(1, round(opaque.width * scale)), max(1, round(opaque.height * scale)))
        opaque = opaque.resize(size, Image.Resampling.BOX)
    levels = np.asarray(opaque, dtype=np.float32) / 255
    return levels if levels.ndim == 3 else levels[..., None]


def _in_range(deep: np.ndarray) -> np.ndarray:
    """Return values of more than 8 bits in 0..1, by the smallest usual range that holds them."""
    low, high = float(deep.min()), float(deep.max())
    if low < 0:
        return ((deep - low) / max(high - low, 1e-9)).astype(np.float32)[..., None]
    bits = next((bits for bits in (8, 10, 12, 14, 16, 24, 32) if high < 2**bits), None)
    full = 1.0 if high <= 1 else high if bits is None else 2.0**bits - 1
    return (deep / full).astype(np.float32)[..., None]


def _opaque(picture: Image.Image) -> Image.Image:
    """Return a picture as L or RGB, transparent pixels filled with the background's colour."""
    if not picture.has_transparency_data:
        return picture.convert("L" if picture.mode in {"1", "L"} else "RGB")
    layer = picture.convert("RGBA")
    ground = Image.new("RGBA", layer.size, (*_background_color(layer), 255))
    return Image.alpha_composite(ground, layer).convert("RGB")


def _background_color(layer: Image.Image) -> tuple[int, int, int]:
    """Return the colour of the paper behind a picture in RGBA.

    Of white, black, the colour stored where the picture is clear and the commonest
    one where it is not, the paper is the one that makes the fewest edges for the
    contrast that it gives: no fringe around the ink, no outline around a card.
    """
    scale = min((SAMPLE_PIXELS / (layer.width * layer.height)) ** 0.5, 1)
    size = (max(1, round(layer.width * scale)), max(1, round(layer.height * scale)))
    # The nearest pixels, for a mean would lose the colours of clear ones.
    sample = np.asarray(layer.resize(size, Image.Resampling.NEAREST), np.float32)
    colors, alpha = sample[..., :3], sample[..., 3:] / 255
    candidates = [np.full(3, 255.0), np.zeros(3)]
    parts = (alpha[..., 0] == 0, alpha[..., 0] > 0.5)
    candidates += [np.median(colors[part], axis=0) for part in parts if part.any()]
    edges = [_edges_for_contrast(colors * alpha + each * (1 - alpha)) for each in candidates]
    best = candidates[int(np.argmin(edges))]
    red, green, blue = (round(float(value)) for value in best)
    return red, green, blue


def _edges_for_contrast(picture: np.ndarray) -> float:
    contrast = float(np.ptp(picture, axis=(0, 1)).max())
    if contrast < MIN_CONTRAST * 255:
        return np.inf
    steps = sum(float(np.abs(np.diff(picture, axis=axis)).max(axis=-1).sum()) for axis in (0, 1))
    return steps / contrast
