"""The width of strokes: brought into the range of MNIST's."""

import numpy as np
from PIL import Image

BOX_SIDE = 20  # pixels: the longer side of the ink in MNIST's form
WORK_SCALE = 8  # pixels of the working picture for each of MNIST's
# Width of strokes in MNIST's pixels as `stroke_width` measures it on MNIST's own digits
# enlarged: 1 in 1,000 is thinner than the first, or thicker than the last. Thinner ones
# are made as wide as TARGET_WIDTH, which of 2.4 (MNIST's median), 2.8 and 3.2 is read best
# on digits that docs/guides/pictures.md does not show.
MIN_WIDTH, TARGET_WIDTH, MAX_WIDTH = 1.35, 3.2, 4.8
USUAL_WIDTHS = (0.8, 6.0)  # outside of it, a change of the width is worth a warning


def stroke_width(ink: np.ndarray) -> float:
    """Return the mean width of strokes, in pixels: twice their area over their outline.

    The outline's length is the ink's total variation, which soft edges do not change.
    """
    padded = np.pad(ink, 1)
    down, right = np.diff(padded, axis=0)[:, :-1], np.diff(padded, axis=1)[:-1]
    outline = float(np.hypot(down, right).sum())
    return 2 * float(ink.sum()) / max(outline, 1e-9)


def to_box(ink: np.ndarray) -> tuple[np.ndarray, float]:
    """Return ink, float [height, width] in 0..1, with a longer side of 20 pixels.

    Strokes out of MNIST's range are brought into it. Also returns the width that
    they had, in pixels of the result.
    """
    width = stroke_width(ink)
    longest = max(ink.shape)
    found = width * BOX_SIDE / longest
    if MIN_WIDTH <= found <= MAX_WIDTH:
        return _resized(ink, BOX_SIDE), found
    target = TARGET_WIDTH if found < MIN_WIDTH else MAX_WIDTH
    work = _reduced(ink, width)
    width, longest = stroke_width(work), max(work.shape)
    share = target / BOX_SIDE
    # With `margin` pixels more on every side: (width + 2 margin) / (longest + 2 margin) = share.
    margin = (share * longest - width) / (1 - share) / 2
    work = thickened(work, margin)
    return _resized(work, BOX_SIDE), found


def thickened(ink: np.ndarray, pixels: float) -> np.ndarray:
    """Return the ink wider by pixels on every side, or narrower below 0; the array with it."""
    whole = int(np.ceil(abs(pixels)))
    work = np.pad(ink, whole if pixels > 0 else 1)
    choose = np.maximum if pixels > 0 else np.minimum
    for step in range(whole):
        following = _neighbours(work, choose, corners=step % 2 == 1)
        share = min(abs(pixels) - step, 1)
        work = following if share == 1 else work + share * (following - work)
    return work


def _neighbours(ink: np.ndarray, choose: np.ufunc, *, corners: bool) -> np.ndarray:
    """Return the largest, or least, of each pixel's neighbours; in turn they make octagons."""
    padded = np.pad(ink, 1)
    rows = choose(choose(padded[:-2], padded[2:]), padded[1:-1])
    if corners:
        chosen: np.ndarray = choose(choose(rows[:, :-2], rows[:, 2:]), rows[:, 1:-1])
        return chosen
    columns = choose(padded[1:-1, :-2], padded[1:-1, 2:])
    crossed: np.ndarray = choose(rows[:, 1:-1], columns)
    return crossed


def _reduced(ink: np.ndarray, width: float) -> np.ndarray:
    """Return the ink with a longer side of 160 pixels, lines still as dark as they were."""
    target = BOX_SIDE * WORK_SCALE
    factor = max(ink.shape) // target
    if factor > 1 and width < 2 * factor:  # a mean would make such lines pale
        rows, columns = (-side % factor for side in ink.shape)
        padded = np.pad(ink, ((0, rows), (0, columns)))
        blocks = padded.reshape(padded.shape[0] // factor, factor, -1, factor)
        ink = blocks.max(axis=(1, 3))
    return _resized(ink, target)


def _resized(ink: np.ndarray, longest: int) -> np.ndarray:
    scale = longest / max(ink.shape)
    height, width = (max(1, round(side * scale)) for side in ink.shape)
    smooth = Image.Resampling.BOX if scale < 1 else Image.Resampling.BILINEAR
    return np.asarray(Image.fromarray(ink.astype(np.float32)).resize((width, height), smooth))
