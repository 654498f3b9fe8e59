"""Distortions: mild, seeded, another one for each image; and the maps they are made of."""

import math

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from torch.nn import functional

from tests.support.bundles import random_images
from training.augment import affine_maps, distort, warp
from training.data import Data
from training.evaluate import rotate, shift


def generator(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_distortion_is_mild_seeded_and_different_by_image(mnist: Data) -> None:
    images = mnist.train.pixels()[:1].expand(64, -1, -1)
    distorted = distort(images, generator())
    assert torch.equal(distorted, distort(images, generator()))
    assert not torch.equal(distorted[0], distorted[1])
    rows, columns = torch.meshgrid(torch.arange(28.0), torch.arange(28.0), indexing="ij")
    for axis in (rows, columns):
        centre = (images * axis).sum((1, 2)) / images.sum((1, 2))
        moved = (distorted * axis).sum((1, 2)) / distorted.sum((1, 2))
        assert float((moved - centre).abs().max()) < 3
        assert float((moved - centre).abs().mean()) > 0.1


@hypothesis.given(
    strength=st.floats(0, 10), shape=st.tuples(*[st.integers(1, 30)] * 2), seed=st.integers(0, 99)
)
def test_distorted_pixels_stay_in_their_range_and_shape(
    strength: float, shape: tuple[int, int], seed: int
) -> None:
    images = torch.from_numpy(random_images(3, shape, seed))
    distorted = distort(images, generator(seed), strength)
    assert distorted.shape == images.shape
    assert float(distorted.min()) >= 0
    assert float(distorted.max()) <= 1.00001


def test_strength_0_is_identity_and_more_changes_more(mnist: Data) -> None:
    images = mnist.train.pixels()[:256]
    changes = [
        float((distort(images, generator(), strength) - images).abs().mean())
        for strength in (0.0, 0.5, 1.0, 2.0)
    ]
    assert changes[0] < 1e-6
    assert changes == sorted(changes)
    assert changes[1] > 0.01


@hypothesis.given(values=st.lists(st.floats(-0.5, 0.5), min_size=6, max_size=6))
def test_affine_maps_match_torchs_affine_grid(values: list[float]) -> None:
    images = torch.from_numpy(random_images(2, (28, 28)))
    maps = affine_maps(torch.tensor([values, [0.0] * 6]))
    grid = functional.affine_grid(maps, [2, 1, 28, 28], align_corners=False)
    expected = functional.grid_sample(images[:, None], grid, align_corners=False)[:, 0]
    torch.testing.assert_close(warp(images, maps), expected, rtol=0, atol=1e-3)


@hypothesis.given(right=st.integers(-28, 28), down=st.integers(-28, 28))
def test_a_shift_by_whole_pixels_moves_the_array(right: int, down: int) -> None:
    image = random_images(1, (28, 28))
    padded = np.pad(image, ((0, 0), (28, 28), (28, 28)))
    expected = padded[:, 28 - down : 56 - down, 28 - right : 56 - right]
    shifted = shift(torch.from_numpy(image), right, down).numpy()
    np.testing.assert_allclose(shifted, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("quarters", [-1, 0, 1, 2])
def test_a_quarter_rotation_turns_counter_clockwise(quarters: int) -> None:
    image = torch.from_numpy(random_images(1, (28, 28)))
    turned = rotate(image, 90.0 * quarters)
    expected = torch.rot90(image, quarters, dims=(1, 2))
    torch.testing.assert_close(turned, expected, rtol=0, atol=1e-4)


def test_a_small_rotation_turns_by_its_degrees() -> None:
    """A dot right of the centre moves up by its distance times the angle."""
    image = torch.zeros(1, 28, 28)
    image[0, 13:15, 22:24] = 1.0
    rows = torch.arange(28.0)[:, None]
    turned = rotate(image, 10.0)
    moved = float((turned[0] * rows).sum() / turned.sum() - 13.5)
    assert moved == pytest.approx(-9.0 * math.sin(math.radians(10)), abs=0.1)
