"""Augmentation: an affine and elastic distortion, a different one for every image of a batch.

Where each pixel of the distorted image is taken from is a linear function of the
map's parameters, so all maps of a batch are one product with a fixed basis.
"""

import functools
import math

import torch
from torch.nn import functional

# Limits of the uniform affine parameters, at strength 1.
ROTATION_DEGREES = 8.0
SCALE_SHARE = 0.07
SHIFT_PIXELS = 1.0
SHEAR = 0.1
# The elastic field: normal displacements at knots, smooth between them.
ELASTIC_PIXELS = 0.7
ELASTIC_GRID = 5  # knots along a side


def distort(
    images: torch.Tensor, generator: torch.Generator, strength: float = 1.0
) -> torch.Tensor:
    """Return distorted copies of images, float32 [N, H, W], by bilinear sampling.

    `strength` multiplies every magnitude; pixels from outside an image are 0.
    The generator is on the CPU, also for images on a GPU.
    """
    count, _, width = images.shape
    pixel = 2 / width  # coordinates run from -1 to 1
    uniform = (torch.rand(count, 6, generator=generator) * 2 - 1) * strength
    limits = [math.radians(ROTATION_DEGREES), SCALE_SHARE, SCALE_SHARE, SHEAR]
    limits += [SHIFT_PIXELS * pixel] * 2
    affine = affine_maps(uniform * torch.tensor(limits))
    knots = torch.randn(count, 2, ELASTIC_GRID**2, generator=generator)
    return warp(images, torch.cat([affine, knots * (ELASTIC_PIXELS * pixel * strength)], dim=2))


def affine_maps(parameters: torch.Tensor) -> torch.Tensor:
    """Return affine maps [N, 2, 3]: where x and y are taken from, as factors of x, y and 1.

    Parameters [N, 6]: an angle in radians, what is added to the scales of x and of
    y, shear, and shifts of x and of y in coordinates. Zeros give the identity.
    """
    angle, scale_x, scale_y, shear, shift_x, shift_y = parameters.unbind(dim=1)
    cosine, sine = angle.cos(), angle.sin()
    scale_x, scale_y = 1 + scale_x, 1 + scale_y
    rows = [
        torch.stack([scale_x * cosine, shear * cosine - scale_y * sine, shift_x], dim=1),
        torch.stack([scale_x * sine, shear * sine + scale_y * cosine, shift_y], dim=1),
    ]
    return torch.stack(rows, dim=1)


def warp(images: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
    """Return images [N, H, W] sampled by maps [N, 2, 3] or [N, 2, 3 + knots]."""
    count, height, width = images.shape
    basis = _basis(height, width)[: maps.shape[2]].to(images.device)
    grid = (maps.to(images.device).flatten(0, 1) @ basis).view(count, 2, height, width)
    return functional.grid_sample(images[:, None], grid.permute(0, 2, 3, 1), align_corners=False)[
        :, 0
    ]


@functools.cache
def _basis(height: int, width: int) -> torch.Tensor:
    """Return [3 + knots, H·W]: x, y and 1 at each pixel, and the bicubic bump of each knot."""
    y, x = torch.meshgrid(
        (torch.arange(height) + 0.5) * (2 / height) - 1,
        (torch.arange(width) + 0.5) * (2 / width) - 1,
        indexing="ij",
    )
    knots = torch.eye(ELASTIC_GRID**2).view(-1, 1, ELASTIC_GRID, ELASTIC_GRID)
    bumps = functional.interpolate(
        knots, size=(height, width), mode="bicubic", align_corners=True
    ).flatten(1)
    plane = torch.stack([x.flatten(), y.flatten(), torch.ones(height * width)])
    return torch.cat([plane, bumps])
