"""Pictures of any kind brought to the form of the training images.

MNIST's own way: light ink on a dark background, the ink's box scaled to 20
pixels along its longer side, its centre of mass in the middle of 28x28.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from forward_client.errors import PictureError
from forward_client.pictures.files import MIN_CONTRAST, read_array, read_picture
from forward_client.pictures.ink import MIN_INK, NO_INK, find_ink
from forward_client.pictures.strokes import BOX_SIDE, USUAL_WIDTHS, to_box

SIDE = 28


@dataclass(frozen=True)
class Images:
    """The images of a file.

    Attributes:
        pixels: uint8 or float32 [N, 28, 28], as `ForwardClient.predict` takes them.
        warnings: what made the picture hard to read; empty if nothing did.
    """

    pixels: np.ndarray
    warnings: tuple[str, ...] = ()


def load_images(path: Path) -> np.ndarray:
    """Return the images of a file, as `read_images` does, without its warnings.

    Args:
        path: a picture, or a NumPy file.

    Raises:
        PictureError: the file can't be read, or shows nothing.
    """
    return read_images(path).pixels


def read_images(path: Path) -> Images:
    """Return the images of a file.

    A NumPy file of shape [28, 28] or [N, 28, 28] is taken as it is; any other
    array of two dimensions, and every picture, goes through `normalise`.

    Args:
        path: a picture, or a NumPy file (.npy).

    Raises:
        PictureError: the file can't be read, or shows nothing.
    """
    if path.suffix.lower() == ".npy":
        array = read_array(path)
        _check(path, array)
        if array.shape[-2:] == (SIDE, SIDE):
            return Images(_as_sent(array).reshape(-1, SIDE, SIDE))
        picture = _as_picture(path, array)
    else:
        picture = read_picture(path)
    try:
        image, warnings = _normalised(picture)
    except PictureError as error:
        raise PictureError(f"{path}: {error}") from None
    return Images(image[None], warnings)


def normalise(picture: np.ndarray) -> np.ndarray:
    """Return a picture in MNIST's form, uint8 [28, 28].

    A picture in MNIST's form already is returned unchanged, or inverted if its ink is dark.

    Args:
        picture: floating [height, width, channels] in 0..1.

    Raises:
        PictureError: there is no ink.
    """
    return _normalised(picture)[0]


def _normalised(picture: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    unchanged = _in_mnist_form(picture)
    if unchanged is not None:
        return unchanged, ()
    ink = find_ink(picture)
    box, width = to_box(ink.values)
    warnings = list(ink.warnings)
    if not USUAL_WIDTHS[0] <= width <= USUAL_WIDTHS[1]:
        kind = "thin" if width < USUAL_WIDTHS[0] else "thick"
        warnings.append(f"the strokes are {kind} and were changed to MNIST's width")
    return _centred(box), tuple(warnings)


def _in_mnist_form(picture: np.ndarray) -> np.ndarray | None:
    """Return the ink of a picture that has MNIST's form already, to the bit, or None."""
    if picture.shape[:2] != (SIDE, SIDE):
        return None
    border = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
    ink = np.abs(picture - np.median(border, axis=0)).max(axis=-1)
    if not ink.max() >= MIN_CONTRAST:  # nor with NaN
        raise PictureError(NO_INK)
    rows, columns = (np.flatnonzero((ink > MIN_INK * ink.max()).any(axis=axis)) for axis in (1, 0))
    sides = (rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1)
    middle = (SIDE - 1) / 2
    offsets = [abs(centre - middle) for centre in _centre_of_mass(ink)]
    if BOX_SIDE - 3 <= max(sides) <= BOX_SIDE and max(offsets) <= 1.5:
        return np.rint(ink * 255).astype(np.uint8)
    return None


def _centred(ink: np.ndarray) -> np.ndarray:
    """Return the ink in a field of 28x28 with its centre of mass in the middle."""
    field = np.zeros((SIDE, SIDE), np.float64)
    starts = []
    for side, centre in zip(ink.shape, _centre_of_mass(ink), strict=True):
        start = round((SIDE - 1) / 2 - centre)
        starts.append(min(max(start, 0), SIDE - side))
    top, left = starts
    field[top : top + ink.shape[0], left : left + ink.shape[1]] = ink
    return np.rint(np.clip(field, 0, 1) * 255).astype(np.uint8)


def _centre_of_mass(ink: np.ndarray) -> tuple[float, float]:
    """Return row and column of the centre of mass, in pixels."""
    total = ink.sum()
    row = float(ink.sum(axis=1) @ np.arange(ink.shape[0]) / total)
    column = float(ink.sum(axis=0) @ np.arange(ink.shape[1]) / total)
    return row, column


def _check(path: Path, array: np.ndarray) -> None:
    """Refuse an array with the shape of no image, or a type of no pixels."""
    expected = f"expected an array [height, width] or [N, {SIDE}, {SIDE}]"
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[1:] != (SIDE, SIDE)):
        raise PictureError(f"{path}: {expected}, got {list(array.shape)}")
    if array.shape[-1] == SIDE * SIDE:
        raise PictureError(
            f"{path}: {expected}, got {list(array.shape)}, which looks like flattened images; "
            f"reshape them to [N, {SIDE}, {SIDE}]"
        )
    if array.size == 0:
        raise PictureError(f"{path}: the array is empty: {list(array.shape)}")
    if array.dtype != np.uint8 and not np.issubdtype(array.dtype, np.floating):
        raise PictureError(
            f"{path}: expected uint8 or floating values in 0..1, got {array.dtype}; convert them "
            "with numpy's astype"
        )


def _as_sent(array: np.ndarray) -> np.ndarray:
    """Return images as they are sent, uint8 or float32; too large for it becomes infinite."""
    if array.dtype == np.uint8:
        return array
    with np.errstate(over="ignore"):
        return array.astype(np.float32)


def _as_picture(path: Path, array: np.ndarray) -> np.ndarray:
    """Return an array of any size as a picture, float32 in 0..1, of one channel."""
    if array.dtype == np.uint8:
        return array[..., None].astype(np.float32) / 255
    if not (array.min() >= 0 and array.max() <= 1):
        raise PictureError(
            f"{path}: expected uint8 or floating values in 0..1, got {array.dtype} from "
            f"{array.min()} to {array.max()}"
        )
    return array[..., None].astype(np.float32)
