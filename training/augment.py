"""Augmentation: a mild affine and elastic distortion, another one for every image of a batch."""

import math

import torch
from torch.nn import functional

ROTATION_DEGREES = 8.0
SCALE_SHARE = 0.07
SHIFT_PIXELS = 1.0
SHEAR = 0.1
ELASTIC_PIXELS = 0.7  # standard deviation of the displacement
ELASTIC_GRID = 5  # knots of the displacement field along a side


def distort(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Return distorted copies of images, float32 [N, H, W], by bilinear sampling."""
    count, height, width = images.shape
    grid = functional.affine_grid(
        _affine(count, width, generator), [count, 1, height, width], align_corners=False
    )
    knots = torch.randn(count, 2, ELASTIC_GRID, ELASTIC_GRID, generator=generator)
    field = functional.interpolate(knots, size=(height, width), mode="bicubic", align_corners=True)
    # A grid of grid_sample runs from -1 to 1, so a pixel is 2 / width of it.
    grid = grid + field.permute(0, 2, 3, 1) * (ELASTIC_PIXELS * 2 / width)
    return functional.grid_sample(images[:, None], grid, align_corners=False)[:, 0]


def _affine(count: int, width: int, generator: torch.Generator) -> torch.Tensor:
    """Return random affine maps, [N, 2, 3], in the coordinates of affine_grid."""

    def uniform(limit: float) -> torch.Tensor:
        return (torch.rand(count, generator=generator) * 2 - 1) * limit

    angle = uniform(math.radians(ROTATION_DEGREES))
    scale_x, scale_y = 1 + uniform(SCALE_SHARE), 1 + uniform(SCALE_SHARE)
    shear = uniform(SHEAR)
    shift_x, shift_y = (uniform(SHIFT_PIXELS * 2 / width) for _ in range(2))
    cosine, sine = angle.cos(), angle.sin()
    rows = [
        [scale_x * cosine, shear * cosine - scale_y * sine, shift_x],
        [scale_x * sine, shear * sine + scale_y * cosine, shift_y],
    ]
    return torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)
