"""Signed values of pixels as a picture in the terminal."""

import numpy as np
from rich.text import Text

# Shades of one sign without color, weak to strong; a sign has letters of its own.
POSITIVE, NEGATIVE = "+xX", "-oO"
WEAKEST = 1 / 12  # share of the largest magnitude; below it a cell is empty
RED, BLUE = (255, 70, 50), (60, 120, 255)  # told apart also by those who see red and green alike


def show_signed(values: np.ndarray, *, color: bool, ascii_only: bool = False) -> Text:
    """Return values, [H, W], two pixels in a cell: upper and lower half.

    In color: red above 0, blue below, black at 0; else signs and letters of the two pixels' sum.
    """
    text = Text()
    if color and not ascii_only:
        scale = _scale(values)
        values = _even(values)
        for upper, lower in zip(values[0::2], values[1::2], strict=True):
            for above, below in zip(upper.tolist(), lower.tolist(), strict=True):
                text.append("▀", f"{_color(above / scale)} on {_color(below / scale)}")
            text.append("\n")
        return text
    sums = _cells(values)
    scale = _scale(sums)
    for row in sums.tolist():
        text.append("".join(_letter(value / scale) for value in row) + "\n")
    return text


def legend(values: np.ndarray, *, color: bool, ascii_only: bool = False) -> Text:
    """Return what the picture's colors or letters mean, and the strength of the strongest."""
    if color and not ascii_only:
        largest = _scale(values)
        return Text.assemble(
            ("█", _color(1)), f" {largest:.2g}  ", ("█", _color(-1)), f" {-largest:.2g}"
        )
    largest = _scale(_cells(values))
    return Text(
        f"{' '.join(POSITIVE)} up to {largest:.2g}, {' '.join(NEGATIVE)} down to {-largest:.2g}"
    )


def _cells(values: np.ndarray) -> np.ndarray:
    """Return the sums of upper and lower pixels, [H/2, W]."""
    values = _even(values)
    sums: np.ndarray = values[0::2] + values[1::2]
    return sums


def _even(values: np.ndarray) -> np.ndarray:
    """Return values with an even number of rows; the one that is added is 0."""
    return np.pad(values, ((0, len(values) % 2), (0, 0)))


def _scale(values: np.ndarray) -> float:
    """Return the largest magnitude, 1 if all are 0."""
    return float(np.abs(values).max(initial=0)) or 1.0


def sign_color(value: float) -> str:
    """Return the color of the sign of a number."""
    return _color(1 if value > 0 else -1)


def _color(share: float) -> str:
    """Return the color of a value in -1..1; the root makes weak ones visible."""
    strength = abs(share) ** 0.5
    red, green, blue = (round(strength * part) for part in (RED if share > 0 else BLUE))
    return f"rgb({red},{green},{blue})"


def _letter(share: float) -> str:
    if abs(share) < WEAKEST:
        return " "
    letters = POSITIVE if share > 0 else NEGATIVE
    return letters[min(int(abs(share) ** 0.5 * len(letters)), len(letters) - 1)]
