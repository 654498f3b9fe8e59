"""Statistics by unit are those of float64 NumPy, and leave out what is not finite."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from server.engine.units import unit_statistics

ARRAYS = st_numpy.arrays(
    np.float32,
    st_numpy.array_shapes(min_dims=2, max_dims=3, max_side=6),
    elements=st.one_of(
        st.floats(-1e6, 1e6, width=32), st.sampled_from([0.0, np.nan, np.inf, -np.inf])
    ),
)


@given(ARRAYS)
def test_unit_statistics_are_those_of_finite_values(array: np.ndarray) -> None:
    found = unit_statistics(array)
    for unit in np.ndindex(array.shape[1:]):
        every = array[(slice(None), *unit)].astype(np.float64)
        values = every[np.isfinite(every)]
        assert found.zero_share[unit] == (every == 0).sum() / len(every)
        others = (found.mean, found.standard_deviation, found.min, found.max)
        numbers = [each[unit] for each in others]
        if not values.size:
            assert np.isnan(numbers).all()
            continue
        expected = [values.mean(), values.std(), values.min(), values.max()]
        np.testing.assert_allclose(numbers, expected, rtol=1e-9, atol=1e-9)


def test_sums_of_units_are_taken_in_float64() -> None:
    """In float32 the mean of these is off by more than their deviation."""
    array = np.full((100_000, 2), 16_777_216, np.float32)
    array[::2, 1] += 2
    found = unit_statistics(array)
    assert found.mean.tolist() == [16_777_216, 16_777_217]
    assert found.standard_deviation.tolist() == [0, 1]
