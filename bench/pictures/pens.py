"""Digits drawn anew with a pen of any width: along the skeleton of MNIST's own strokes."""

import numpy as np
from PIL import Image, ImageDraw

FINE = 5  # pixels of the skeleton's picture for one of MNIST's
MARGIN = 0.08  # of the canvas, around MNIST's 20 pixels
SMOOTHINGS = 4  # a skeleton is a staircase; a hand is not


def draw(image: np.ndarray, side: int, width: float) -> Image.Image:
    """Return a digit, uint8 [28, 28], as black lines of a width on a white canvas, antialiased."""
    points, pairs = skeleton_lines(image)
    centre = (points.min(axis=0) + points.max(axis=0)) / 2
    reach = max(np.ptp(points, axis=0).max(), 1)
    room = side * (1 - 2 * MARGIN) - width
    places = (points - centre) * (room / reach) + side / 2
    fine = 4 if width < 12 else 2  # finer than the canvas, for soft edges
    sheet = Image.new("L", (side * fine, side * fine), 255)
    pen = ImageDraw.Draw(sheet)
    radius = width * fine / 2
    for row, column in places * fine:
        box = (column - radius, row - radius, column + radius, row + radius)
        if radius > 1:
            pen.ellipse(box, fill=0)
    for start, end in pairs:
        line = [(places[at][1] * fine, places[at][0] * fine) for at in (start, end)]
        pen.line(line, fill=0, width=max(1, round(width * fine)))
    return sheet.resize((side, side), Image.Resampling.BOX)


def skeleton_lines(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return points [P, 2], row and column, and the pairs of them that a line joins."""
    size = (image.shape[1] * FINE, image.shape[0] * FINE)
    large = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
    bones = thin(large > 127)
    if not bones.any():
        bones = thin(large > large.max() // 2)
    points = np.argwhere(bones).astype(float)
    number = np.full(bones.shape, -1)
    number[bones] = np.arange(len(points))
    pairs = []
    for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
        moved = np.roll(number, (-down, -right), axis=(0, 1))
        both = (number >= 0) & (moved >= 0)
        if down and right:  # no diagonal across a corner that is there
            both &= (np.roll(number, -down, axis=0) < 0) & (np.roll(number, -right, axis=1) < 0)
        pairs.append(np.stack([number[both], moved[both]], axis=1))
    joined = np.concatenate(pairs)
    degree = np.bincount(joined.ravel(), minlength=len(points))
    for _ in range(SMOOTHINGS):
        total = np.zeros_like(points)
        for start, end in (joined.T, joined.T[::-1]):
            np.add.at(total, start, points[end])
        mean = total / np.maximum(degree, 1)[:, None]
        inner = (degree == 2)[:, None]
        points = np.where(inner, (points + mean) / 2, points)
    return points, joined


def thin(mask: np.ndarray) -> np.ndarray:
    """Return the skeleton of a mask, one pixel wide, by Zhang and Suen's thinning."""
    mask = np.pad(mask, 1).astype(np.uint8)
    while True:
        before = mask.sum()
        for first in (True, False):
            # p2 … p9: north, north-east, … north-west.
            ring = [
                np.roll(mask, shift, axis=(0, 1))
                for shift in (
                    (1, 0),
                    (1, -1),
                    (0, -1),
                    (-1, -1),
                    (-1, 0),
                    (-1, 1),
                    (0, 1),
                    (1, 1),
                )
            ]
            count = sum(ring)
            turns = sum(
                ((a == 0) & (b == 1)).astype(np.uint8)
                for a, b in zip(ring, ring[1:] + ring[:1], strict=True)
            )
            north, east, south, west = ring[0], ring[2], ring[4], ring[6]
            if first:
                free = (north & east & south == 0) & (east & south & west == 0)
            else:
                free = (north & east & west == 0) & (north & south & west == 0)
            mask[(mask == 1) & (count >= 2) & (count <= 6) & (turns == 1) & free] = 0
        if mask.sum() == before:
            return mask[1:-1, 1:-1].astype(bool)
