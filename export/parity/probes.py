"""Synthetic images that exercise every part of a network, for checks without its dataset."""

from collections.abc import Mapping, Sequence

import numpy as np

from export.architecture import Stage

RANDOM_IMAGES = 128


def probe_images(
    stages: Sequence[Stage], weights: Mapping[str, np.ndarray], low: float, high: float
) -> np.ndarray:
    """Return images, FLOAT32 [N, H, W] in low..high; the same ones every time.

    Plain and odd ones, random ones of every density, and for each unit of the
    first layer the image that excites it most: every unit that can be on is on in one of them.
    """
    shape = stages[0].shape
    return np.concatenate(
        [_plain(shape, low, high), _random(shape, low, high), _exciting(stages, weights, low, high)]
    )


def vector_images(
    stages: Sequence[Stage], weights: Mapping[str, np.ndarray], low: float, high: float
) -> np.ndarray:
    """Return a few of those images, FLOAT32 [N, H, W], that still turn every unit on."""
    plain = _plain(stages[0].shape, low, high)
    exciting = _exciting(stages, weights, low, high)
    weight, bias = _first_layer(stages, weights)
    is_on = exciting.reshape(len(exciting), -1) @ weight.T + bias > 0  # [image, unit]
    chosen: list[int] = []
    seen = np.zeros(len(weight), bool)
    while (gain := (is_on & ~seen).sum(axis=1)).any():
        chosen.append(int(gain.argmax()))
        seen |= is_on[chosen[-1]]
    return np.concatenate([plain, exciting[chosen]])


def _plain(shape: tuple[int, ...], low: float, high: float) -> np.ndarray:
    """Return an all-dark image, an all-bright one, one of the faintest light, one of one pixel."""
    images = np.full((4, *shape), low, np.float32)
    images[1] = high
    images[2] = np.nextafter(np.float32(low), np.float32(high))
    images[(3, *(side // 2 for side in shape))] = high
    return images


def _random(shape: tuple[int, ...], low: float, high: float) -> np.ndarray:
    generator = np.random.default_rng(0)
    density = np.linspace(0, 1, RANDOM_IMAGES).reshape(-1, *[1] * len(shape))
    is_lit = generator.random((RANDOM_IMAGES, *shape)) < density
    light = generator.uniform(low, high, is_lit.shape)
    return np.where(is_lit, light, low).astype(np.float32)


def _exciting(
    stages: Sequence[Stage], weights: Mapping[str, np.ndarray], low: float, high: float
) -> np.ndarray:
    weight, _ = _first_layer(stages, weights)
    images = np.where(weight > 0, high, low).astype(np.float32)
    return images.reshape(-1, *stages[0].shape)


def _first_layer(
    stages: Sequence[Stage], weights: Mapping[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    name = next(stage.name for stage in stages if stage.operation == "Linear")
    return weights[f"{name}.weight"], weights[f"{name}.bias"]
