"""Pixels of a run: those of every request, in order, whatever their types and sizes."""

from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from server.engine.staging import PixelBuffer

SHAPE = (3, 5)
MOST = 12


def images_of(count: int) -> st.SearchStrategy[np.ndarray]:
    shape = (count, *SHAPE)
    floats = st_numpy.arrays(np.float32, shape, elements=st.floats(0, 1, width=32))
    return floats | st_numpy.arrays(np.uint8, shape)


REQUESTS = (
    st.lists(st.integers(1, 4), min_size=1, max_size=8)
    .filter(lambda counts: sum(counts) <= MOST)
    .flatmap(lambda counts: st.tuples(*map(images_of, counts)))
)


REQUESTS_OF_ANY_SIZE = st.tuples(st.integers(1, 5) | st.integers(60, 200), st.booleans())


def oracle(requests: Sequence[np.ndarray]) -> np.ndarray:
    exact = [
        images.astype(np.float64) / (255 if images.dtype == np.uint8 else 1) for images in requests
    ]
    return np.concatenate(exact).astype(np.float32)


@given(st.lists(REQUESTS, min_size=1, max_size=4))
def test_pixels_do_not_depend_on_earlier_runs(
    runs: list[tuple[np.ndarray, ...]],
) -> None:
    buffer = PixelBuffer(MOST, SHAPE)
    for requests in runs:
        before = [images.copy() for images in requests]
        found = buffer.gather(requests)
        assert found.dtype == np.float32
        assert found.shape[1:] == SHAPE
        assert found.tobytes() == oracle(requests).tobytes()
        for images, copy in zip(requests, before, strict=True):
            np.testing.assert_array_equal(images, copy)


@given(st.lists(REQUESTS_OF_ANY_SIZE, min_size=1, max_size=6))
def test_runs_have_all_images_and_copy_no_large_floats(
    kinds: list[tuple[int, bool]],
) -> None:
    random = np.random.default_rng(0)
    requests = [
        random.integers(0, 256, (count, *SHAPE), np.uint8)
        if is_bytes
        else random.random((count, *SHAPE), np.float32)
        for count, is_bytes in kinds
    ]
    large = [id(images) for images in requests if images.dtype != np.uint8 and len(images) >= 64]
    buffer = PixelBuffer(sum(count for count, _ in kinds), SHAPE)
    found, in_place, counted = [], [], 0
    for pixels, count in buffer.runs(requests):
        counted += count
        found.append(pixels.copy())
        in_place += [id(pixels)] if id(pixels) in large else []
    assert np.concatenate(found).tobytes() == oracle(requests).tobytes()
    assert {pixels.dtype for pixels in found} == {np.dtype(np.float32)}
    assert in_place == large
    assert counted == len(requests)


def test_bytes_are_divided_as_in_float64() -> None:
    every = np.arange(256, dtype=np.uint8)
    found = PixelBuffer(1, (256,)).gather([every[None]])
    assert found.tobytes() == (every.astype(np.float64) / 255).astype(np.float32).tobytes()


def test_read_only_images_are_accepted() -> None:
    """As they come out of a request's bytes."""
    images = np.frombuffer(bytes(range(15)), np.uint8).reshape(1, *SHAPE)
    found = PixelBuffer(2, SHAPE).gather([images, images])
    assert found.tobytes() == oracle([images, images]).tobytes()
