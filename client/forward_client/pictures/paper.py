"""Paper: the sheet within a picture, and how far each pixel is from its colour."""

import numpy as np
from PIL import Image, ImageFilter

from forward_client.pictures.components import label

COARSE_PIXELS = 128 * 128  # enough to see where the paper is
FIT_PIXELS = 64 * 64  # enough for six coefficients
LOCAL_SIDE = 32  # pixels of the picture of the light alone; strokes are gone in its median
LOCAL_WINDOW = 17  # of them: more than half of a window must be paper
MIN_SHEET = 0.25  # of the picture's area
MIN_SHEET_FILL = 0.93  # of its box: a sheet has four straight sides, a digit has not
MAX_INK = 0.6  # of the picture's area: what covers more is paper
MIN_HOLE = 0.1  # of the picture's longer side: a sheet has something on it
SAME_COLOR = 0.08  # of the full range: colours that differ less are one
MIN_GAIN = 1.05  # times the pixels that an even colour explains; a gradient must explain more
MIN_LIGHT = 0.3  # of the full range: darker paper is not shaded, but dark
MIN_SHADE = 0.4  # of the paper's light: a shadow is no darker
Box = tuple[int, int, int, int]  # top, left, bottom, right; the last two exclusive


def find_sheet(picture: np.ndarray) -> Box:
    """Return where the paper is: all of the picture, or what a frame or a table surrounds."""
    height, width = picture.shape[:2]
    coarse = reduced(picture, COARSE_PIXELS)
    far = _largest(coarse - _border_color(coarse))
    near = far <= _otsu_threshold(far)
    sheets = [box for mask in (near, ~near) for box in _sheets(mask)]
    if not sheets:
        return 0, 0, height, width
    rows, columns = far.shape
    top, left, bottom, right = min(sheets, key=lambda box: (box[2] - box[0]) * (box[3] - box[1]))
    # One coarse pixel less where something was cut off: it may show a part of that.
    return (
        int(np.ceil((top + 1) * height / rows)) if top else 0,
        int(np.ceil((left + 1) * width / columns)) if left else 0,
        (bottom - 1) * height // rows if bottom < rows else height,
        (right - 1) * width // columns if right < columns else width,
    )


def distance_from_paper(picture: np.ndarray, *, is_local: bool) -> np.ndarray:
    """Return how far each pixel is from the paper, in its most telling channel.

    The paper's colour may vary smoothly over the sheet, as light does; with
    `is_local` also as abruptly as a shadow's edge. Where smooth light is less, ink is
    as dark for its paper as elsewhere, so its distance counts for more.
    """
    ground = _local_paper(picture) if is_local else _smooth_paper(picture)
    distance = _largest(picture - ground)
    if is_local or ground.ndim == 1 or (light := _largest(ground)).max() < MIN_LIGHT:
        return distance
    shaded: np.ndarray = distance * (light.max() / np.maximum(light, MIN_SHADE * light.max()))
    return shaded


def _largest(differences: np.ndarray) -> np.ndarray:
    """Return the largest absolute value over the channels; faster than NumPy's own `max`."""
    largest: np.ndarray = np.abs(differences[..., 0])
    for each in range(1, differences.shape[-1]):
        np.maximum(largest, np.abs(differences[..., each]), out=largest)
    return largest


def reduced(picture: np.ndarray, pixels: int) -> np.ndarray:
    """Return a picture with at most so many pixels, each the mean of those that it replaces."""
    scale = (pixels / (picture.shape[0] * picture.shape[1])) ** 0.5
    if scale >= 1:
        return picture
    height, width = (max(1, int(side * scale)) for side in picture.shape[:2])
    return resized(picture, height, width, Image.Resampling.BOX)


def resized(picture: np.ndarray, height: int, width: int, smooth: Image.Resampling) -> np.ndarray:
    """Return a picture of another size, channel by channel."""
    channels = [
        Image.fromarray(np.ascontiguousarray(picture[..., each], np.float32))
        for each in range(picture.shape[-1])
    ]
    return np.stack([np.asarray(each.resize((width, height), smooth)) for each in channels], -1)


def _border_color(picture: np.ndarray) -> np.ndarray:
    """Return the colour that the border shows: the median, if it is a colour of many pixels.

    Where ink covers half of the border it is a shade of neither, and the commonest
    colour is taken.
    """
    border = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
    color: np.ndarray = np.median(border, axis=0)
    if np.count_nonzero(_largest(border - color) <= SAME_COLOR) < len(border) // 4:
        sample = border[:: max(1, len(border) // 64)]
        close = [_largest(border - each) <= SAME_COLOR for each in sample]
        color = np.median(border[max(close, key=np.count_nonzero)], axis=0)
    return color


def _otsu_threshold(values: np.ndarray) -> float:
    """Return the value that splits values in 0..1 into two classes best, by Otsu's measure."""
    counts, edges = np.histogram(values, bins=128, range=(0, 1))
    middles = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)
    above = below[-1] - below
    sums = np.cumsum(counts * middles)
    means = sums / np.maximum(below, 1), (sums[-1] - sums) / np.maximum(above, 1)
    between = below.astype(float) * above * (means[0] - means[1]) ** 2
    # In the middle of all splits that are as good: empty shades lie between the classes.
    best = np.flatnonzero(between >= between.max() * (1 - 1e-9))
    return float(edges[1:][best].mean())


def _sheets(mask: np.ndarray) -> list[Box]:
    """Return the boxes of parts of a mask that are rectangles with something in or on them."""
    parts = label(mask)
    found = []
    for number in np.flatnonzero(parts.sides.prod(axis=1) >= MIN_SHEET * mask.size):
        top, left, last_row, last_column = (int(at) for at in parts.boxes[number])
        inside = parts.labels[top : last_row + 1, left : last_column + 1] == number
        if parts.areas[number] >= MAX_INK * mask.size:  # no digit: ink may reach in from a frame
            whole = _filled(inside)
        else:
            outside = label(np.pad(~inside, 1, constant_values=True)).labels
            whole = outside[1:-1, 1:-1] != outside[0, 0]
        largest = label(whole & ~inside).sides.max(initial=0)
        if whole.mean() >= MIN_SHEET_FILL and largest >= MIN_HOLE * max(mask.shape):
            found.append((top, left, last_row + 1, last_column + 1))
    return found


def _filled(mask: np.ndarray) -> np.ndarray:
    """Return a mask with the gaps in its rows and columns filled."""
    reached = [
        np.maximum.accumulate(mask, axis=axis)
        & np.flip(np.maximum.accumulate(np.flip(mask, axis), axis=axis), axis)
        for axis in (0, 1)
    ]
    return reached[0] | reached[1]


def _smooth_paper(picture: np.ndarray) -> np.ndarray:
    """Return the paper's colour, a quadratic function of the place, fitted where there is no ink.

    It starts from the colour of the border; what is far from the fit does not
    count for the next one. One colour is enough if it explains as much.
    """
    coarse = reduced(picture, FIT_PIXELS)
    constant = _border_color(coarse)
    if min(coarse.shape[:2]) < 8:  # too few pixels for more than one colour
        return constant
    terms = _quadratic(*coarse.shape[:2])
    values = coarse.reshape(len(terms), -1)
    off = _largest(values - constant)
    evenly = np.count_nonzero(off <= SAME_COLOR)
    tolerance = 0.5 * float(off.max())
    fit = np.zeros((terms.shape[1], values.shape[1]))
    fit[0] = constant
    for _ in range(8):
        paper = off <= tolerance
        known = terms[paper].astype(np.float64)
        fit = np.linalg.lstsq(known.T @ known, known.T @ values[paper], rcond=None)[0]
        off = _largest(values - terms @ fit)
        tolerance = max(0.02, min(tolerance, 4 * float(np.median(off[paper]))), 0.6 * tolerance)
    light, seen = terms @ fit, values[paper]
    goes_too_far = (
        (light < seen.min(axis=0) - SAME_COLOR) | (light > seen.max(axis=0) + SAME_COLOR)
    ).any()
    if goes_too_far or np.count_nonzero(off <= SAME_COLOR) < MIN_GAIN * evenly:
        return constant
    ground: np.ndarray = _quadratic(*picture.shape[:2]) @ fit.astype(np.float32)
    return ground.reshape(picture.shape)


def _quadratic(height: int, width: int) -> np.ndarray:
    """Return 1, y, x, yy, yx and xx of each pixel, y and x from -1 to 1, [pixels, 6]."""
    y, x = np.meshgrid(
        np.linspace(-1, 1, height, dtype=np.float32),
        np.linspace(-1, 1, width, dtype=np.float32),
        indexing="ij",
    )
    return np.stack([np.ones_like(x), y, x, y * y, y * x, x * x], axis=-1).reshape(-1, 6)


def _local_paper(picture: np.ndarray) -> np.ndarray:
    """Return the paper's colour as the median of a large window around each place."""
    height, width = picture.shape[:2]
    small = resized(picture, LOCAL_SIDE, LOCAL_SIDE, Image.Resampling.BOX)
    levels = np.rint(np.clip(small, 0, 1) * 255).astype(np.uint8)
    medians = [
        np.asarray(
            Image.fromarray(levels[..., each]).filter(ImageFilter.MedianFilter(LOCAL_WINDOW))
        )
        for each in range(levels.shape[-1])
    ]
    light = np.stack(medians, axis=-1).astype(np.float32) / 255
    return resized(light, height, width, Image.Resampling.BILINEAR)
