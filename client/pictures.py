"""Pictures of any kind brought to the form that the model learnt.

MNIST's own way: light ink on a dark background, the ink's box scaled to 20
pixels along its longer side, its centre of mass in the middle of 28x28.
"""

import warnings
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from PIL import Image, ImageOps

FIELD = 28
BOX = 20
MOST_SIDE = 1024  # pixels; more would only cost memory
LEAST_CONTRAST = 0.1  # of the full range; below it a picture counts as blank
INK_SHARE = 0.2  # of the strongest ink; fainter pixels do not count for the box


class PictureError(Exception):
    """A file that can't be read as a picture or that shows nothing."""


def load_images(path: Path) -> np.ndarray:
    """Return the images of a file, [N, 28, 28], uint8 or float32.

    A NumPy file of shape [28, 28] or [N, 28, 28] is taken as it is; any other
    array of two dimensions, and every picture, goes through `normalise`.

    Raises:
        PictureError: the file can't be read, or shows nothing.
    """
    if path.suffix.lower() == ".npy":
        array = _load_array(path)
        if array.shape[-2:] == (FIELD, FIELD):
            if array.dtype != np.uint8 and not np.issubdtype(array.dtype, np.floating):
                raise PictureError(f"{path}: expected uint8 or floating, got {array.dtype}")
            return array.reshape(-1, FIELD, FIELD)
        picture = _as_picture(path, array)
    else:
        picture = _load_picture(path)
    try:
        return normalise(picture)[None]
    except PictureError as error:
        raise PictureError(f"{path}: {error}") from None


def normalise(picture: np.ndarray) -> np.ndarray:
    """Return a picture, floating [height, width, channels] in 0..1, as MNIST would have it.

    The result is uint8 [28, 28]. A picture that has MNIST's form already comes
    back unchanged, or inverted if its ink is dark.

    Raises:
        PictureError: there is no ink to be seen.
    """
    ink = _ink(picture)
    rows, columns = (
        np.flatnonzero((ink > INK_SHARE * ink.max()).any(axis=axis)) for axis in (1, 0)
    )
    if _has_mnist_form(ink, rows, columns):
        return np.rint(ink * 255).astype(np.uint8)
    cut = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] / ink.max()
    scale = BOX / max(cut.shape)
    height, width = (max(1, round(side * scale)) for side in cut.shape)
    smooth = Image.Resampling.BOX if scale < 1 else Image.Resampling.BILINEAR
    resized = Image.fromarray(cut.astype(np.float32)).resize((width, height), smooth)
    return _centred(np.asarray(resized))


def _ink(picture: np.ndarray) -> np.ndarray:
    """Return how far each pixel is from the background, in its most telling channel.

    The background is the colour that the border shows.
    """
    border = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
    ink: np.ndarray = np.abs(picture - np.median(border, axis=0)).max(axis=-1)
    if not ink.max() >= LEAST_CONTRAST:  # nor with NaN
        raise PictureError("no ink to be seen: the picture is all of one shade")
    return ink


def _has_mnist_form(ink: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> bool:
    if ink.shape != (FIELD, FIELD):
        return False
    sides = (rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1)
    middle = (FIELD - 1) / 2
    offsets = [abs(centre - middle) for centre in _centre_of_mass(ink)]
    return BOX - 3 <= max(sides) <= BOX and max(offsets) <= 1.5


def _centred(ink: np.ndarray) -> np.ndarray:
    """Return the ink in a field of 28x28 with its centre of mass in the middle."""
    field = np.zeros((FIELD, FIELD), np.float64)
    starts = []
    for side, centre in zip(ink.shape, _centre_of_mass(ink), strict=True):
        start = round((FIELD - 1) / 2 - centre)
        starts.append(min(max(start, 0), FIELD - side))
    top, left = starts
    field[top : top + ink.shape[0], left : left + ink.shape[1]] = ink
    return np.rint(np.clip(field, 0, 1) * 255).astype(np.uint8)


def _centre_of_mass(ink: np.ndarray) -> tuple[float, float]:
    """Return row and column of the centre of mass, in pixels."""
    total = ink.sum()
    row = float(ink.sum(axis=1) @ np.arange(ink.shape[0]) / total)
    column = float(ink.sum(axis=0) @ np.arange(ink.shape[1]) / total)
    return row, column


def _load_picture(path: Path) -> np.ndarray:
    """Return a picture as float64 [height, width, channels] in 0..1."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as opened:
                picture = ImageOps.exif_transpose(opened)
                picture.load()
    except (
        OSError,
        SyntaxError,  # of Pillow's, for a damaged chunk of a PNG
        ValueError,
        Image.DecompressionBombError,
        Image.DecompressionBombWarning,
    ) as error:
        raise PictureError(f"{path}: can't be read as a picture: {error}") from error
    if picture.mode[0] in "IF":  # more than 8 bits a pixel, of no fixed range
        deep = np.asarray(picture, dtype=np.float64)
        return np.asarray((deep - deep.min()) / max(np.ptp(deep), 1e-9))[..., None]
    small = picture.convert("RGBA")
    small.thumbnail((MOST_SIDE, MOST_SIDE))
    layer = np.asarray(small, dtype=np.float64) / 255
    colors, alpha = layer[..., :3], layer[..., 3:]
    # Behind what is clear lies paper, or if all that is seen is light, a blackboard.
    light = (colors * alpha).mean() > 0.5 * alpha.mean()
    paper = 0.0 if alpha.min() < 1 and light else 1.0
    return np.asarray(colors * alpha + paper * (1 - alpha))


def _as_picture(path: Path, array: np.ndarray) -> np.ndarray:
    """Return an array of any size as a picture, floating in 0..1, of one channel."""
    if array.dtype == np.uint8:
        return array[..., None] / 255
    if not (np.issubdtype(array.dtype, np.floating) and array.min() >= 0 and array.max() <= 1):
        raise PictureError(
            f"{path}: expected uint8 or floating values in 0..1, got {array.dtype} from "
            f"{array.min()} to {array.max()}"
        )
    return array[..., None].astype(np.float64)


def _load_array(path: Path) -> np.ndarray:
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError, BadZipFile, MemoryError) as error:
        raise PictureError(f"{path}: can't be read as a NumPy file: {error}") from error
    expected = f"expected an array [height, width] or [N, {FIELD}, {FIELD}]"
    if not isinstance(array, np.ndarray):
        raise PictureError(f"{path}: {expected}, got an archive of several")
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[1:] != (FIELD, FIELD)):
        raise PictureError(f"{path}: {expected}, got {list(array.shape)}")
    if array.shape[-1] == FIELD * FIELD:
        raise PictureError(
            f"{path}: {expected}, got {list(array.shape)}, which looks like flattened images; "
            f"reshape them to [N, {FIELD}, {FIELD}]"
        )
    if array.size == 0:
        raise PictureError(f"{path}: the array is empty: {list(array.shape)}")
    return array
