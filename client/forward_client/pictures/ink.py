"""Ink on paper: the digit, cut out from its surroundings."""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from forward_client.errors import PictureError
from forward_client.pictures.files import MIN_CONTRAST
from forward_client.pictures.paper import distance_from_paper, find_sheet
from forward_client.pictures.parts import MIN_DIGIT, Parts, analyse, dilated, upsampled
from forward_client.pictures.ruling import without_ruling

NOISE_FACTOR = 5  # ink is this many standard deviations of the noise above the paper
MIN_NOISE_SIDE = 16  # pixels of a side: too few tell nothing of noise
LOW_NOISE, HIGH_NOISE = 0.02, 0.08  # of the full range: smoothed by 1, by 2 pixels
REMAINING_NOISE = {1: 0.3, 2: 0.15}  # share of the noise that smoothing by so many pixels leaves
LEVELS = (0.5, 0.3, 0.2)  # of the strongest pixel, at which ink is looked for
FRINGE = 0.06  # of the digit's longer side: as far from its core soft ink may be
MAX_UNEVENNESS = 0.2  # of the ink's strength: paper that varies more is hard to tell from ink
MIN_INK = 0.2  # of the strongest ink; fainter pixels do not count for the box
NO_INK = "no ink found: the picture has only one shade"


@dataclass(frozen=True)
class Ink:
    """The ink of a digit, cut out."""

    values: np.ndarray  # float32 [height, width] in 0..1
    warnings: tuple[str, ...]  # what made it hard to find


@dataclass(frozen=True)
class _Found:
    """A digit found."""

    values: np.ndarray  # of `Ink`
    parts: Parts
    strong: float  # how far its ink is from the paper
    unevenness: float  # 98% of the paper is nearer to its colour than this share of that


def find_ink(picture: np.ndarray) -> Ink:
    """Return the ink of a picture, floating [height, width, channels] in 0..1.

    Raises:
        PictureError: there is no ink.
    """
    if not np.isfinite(picture).all():
        raise PictureError("no ink found: the picture has NaN or infinite values")
    top, left, bottom, right = sheet = find_sheet(picture)
    is_cut = sheet != (0, 0, *picture.shape[:2])
    picture = picture[top:bottom, left:right]
    noise = _noise_level(picture)
    radius = 0 if noise <= LOW_NOISE else 2 if noise > HIGH_NOISE else 1
    remaining = noise
    if radius and min(picture.shape[:2]) >= 100 * radius:  # else strokes may be as thin
        picture = _smoothed(picture, radius)
        remaining *= REMAINING_NOISE[radius]
    floor = max(MIN_CONTRAST / 2, NOISE_FACTOR * remaining)
    found = _find(without_ruling(distance_from_paper(picture, is_local=False)), floor)
    is_shaded = False
    if found.parts.is_blob or found.unevenness > MAX_UNEVENNESS:
        # As a shadow's edge does it: with the other model of the light, if that fits better.
        local = _find(distance_from_paper(picture, is_local=True), floor, fallback=found)
        better = local.unevenness < found.unevenness or found.parts.is_blob
        if better and not (local.parts.is_blob or local.parts.touches_edge):
            found, is_shaded = local, True
    values, parts = found.values, found.parts
    conditions = {
        "a frame or a border around the digit was ignored": is_cut or parts.has_border,
        "a shadow lies over the paper": is_shaded,
        "the picture is noisy": noise > LOW_NOISE or found.unevenness > MAX_UNEVENNESS,
        "the contrast is low": found.strong < 2 * MIN_CONTRAST,
        f"specks were ignored ({parts.specks})": parts.specks > 0,
        "there is more than one large shape, possibly several digits": parts.has_several,
        "the ink touches the picture's edge: the digit may be cut off": parts.touches_edge,
        "one large area of ink instead of strokes": parts.is_blob,
        f"the digit is small: {max(values.shape)} pixels": max(values.shape) < 12,
    }
    return Ink(values, tuple(text for text, holds in conditions.items() if holds))


def _find(distance: np.ndarray, floor: float, fallback: "_Found | None" = None) -> "_Found":
    """Return the digit in distances from the paper; `fallback` where there is none."""
    try:
        parts, strong = _find_parts(distance, floor)
    except PictureError:
        if fallback is None:
            raise
        return fallback
    values, low = _cut_out(distance, parts, strong)
    return _Found(values, parts, strong, low / strong)


def _noise_level(picture: np.ndarray) -> float:
    """Return the standard deviation of the noise, by the curvature of most pixels.

    Edges and specks are few and do not change a median.
    """
    if min(picture.shape[:2]) < MIN_NOISE_SIDE:
        return 0.0
    step = max(1, picture.shape[0] // 128)
    rows = picture[::step]
    curvature = rows[:, :-2] - 2 * rows[:, 1:-1] + rows[:, 2:]
    return float(np.median(np.abs(curvature), axis=(0, 1)).max()) / (0.6745 * 6**0.5)


def _smoothed(picture: np.ndarray, radius: int) -> np.ndarray:
    channels = []
    for each in range(picture.shape[-1]):
        levels = Image.fromarray(np.rint(picture[..., each] * 255).astype(np.uint8))
        channels.append(np.asarray(levels.filter(ImageFilter.GaussianBlur(radius))))
    return np.stack(channels, axis=-1).astype(np.float32) / 255


def _find_parts(distance: np.ndarray, floor: float) -> tuple[Parts, float]:
    """Return the digit among the parts of what is far from the paper, and how far it is.

    Looked for from the strongest pixel downwards: the first level that shows more
    than specks and borders is the digit's.
    """
    left = distance
    best: Parts | None = None
    for _ in range(3):  # again without borders, if they were the strongest
        strongest = float(left.max())
        if not strongest >= max(MIN_CONTRAST, floor):
            break
        levels = [max(share * strongest, floor) for share in LEVELS]
        for level in dict.fromkeys(levels):
            parts = analyse(left > level)
            if best is None or parts.longest > best.longest:
                best = parts
            if parts.longest >= MIN_DIGIT * max(parts.digit.shape):
                return _at_half(left, parts, level, floor)
        if not parts.has_border:
            break
        left = np.where(upsampled(dilated(parts.rest, 2), parts.factor, left.shape), 0, left)
    if best is None or best.longest == 0:
        raise PictureError(NO_INK)
    return best, float(
        np.percentile(distance[upsampled(best.digit, best.factor, distance.shape)], 90)
    )


def _at_half(distance: np.ndarray, parts: Parts, level: float, floor: float) -> tuple[Parts, float]:
    """Return the parts at half the strength of the digit's own ink, and that strength."""
    inside = upsampled(parts.digit, parts.factor, distance.shape) & (distance > level)
    strong = float(np.percentile(distance[inside], 75))
    half = max(0.5 * strong, floor)
    if not 0.8 * half <= level <= 1.25 * half:
        again = analyse(distance > half)
        if again.longest >= 0.5 * parts.longest:
            return again, strong
    return parts, strong


def _cut_out(distance: np.ndarray, parts: Parts, strong: float) -> tuple[np.ndarray, float]:
    """Return the digit's ink in 0..1, cut out, and how far the paper is from its colour."""
    fringe = max(2, int(FRINGE * parts.longest))
    rest = dilated(parts.rest, 2)
    region = upsampled(
        dilated(parts.digit, fringe) & ~rest | parts.digit, parts.factor, distance.shape
    )
    paper = distance[~(region | upsampled(rest, parts.factor, distance.shape))]
    low = 0.0
    if paper.size > 0.05 * distance.size:
        low = min(float(np.percentile(paper, 98)), 0.4 * strong)
    values = np.clip((distance - low) / (strong - low), 0, 1) * region
    rows, columns = (np.flatnonzero((values > MIN_INK).any(axis=axis)) for axis in (1, 0))
    return values[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].astype(np.float32), low
