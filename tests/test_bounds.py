"""The error bound is never exceeded, and is no wider than its formula."""

from fractions import Fraction

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from export.architecture import mlp
from export.bounds import UNIT_ROUNDOFF, bounded_forward

# Magnitudes far apart make sums cancel and absorb; 0 makes terms that round nothing.
ELEMENTS = st.one_of(
    st.just(0.0),
    st.floats(-1e3, 1e3, width=32),
    st.floats(-(2.0**-10), 2.0**-10, width=32),
    st.sampled_from([1.0, -1.0, 2.0**24, -(2.0**24), 2.0**-149, 1.1754944e-38]),
)
Vector = list[float]


def exact_forward(weights: dict[str, np.ndarray], image: np.ndarray) -> list[list[Fraction]]:
    """Return the stages of one image in rational arithmetic."""
    flat = [Fraction(float(pixel)) for pixel in image.ravel()]
    linear1 = exact_linear(weights["linear1.weight"], weights["linear1.bias"], flat)
    relu = [max(value, Fraction(0)) for value in linear1]
    linear2 = exact_linear(weights["linear2.weight"], weights["linear2.bias"], relu)
    return [flat, flat, linear1, relu, linear2, linear2]


def exact_linear(weight: np.ndarray, bias: np.ndarray, inputs: list[Fraction]) -> list[Fraction]:
    return [
        sum((Fraction(float(w)) * x for w, x in zip(row, inputs, strict=True)), Fraction(float(b)))
        for row, b in zip(weight, bias, strict=True)
    ]


def float32_linear(
    weight: np.ndarray, bias: np.ndarray, inputs: np.ndarray, order: np.ndarray
) -> np.ndarray:
    """Sum in float32 in any order: `order` is a permutation of the products and the bias."""
    outputs = []
    for row, b in zip(weight, bias, strict=True):
        terms = np.append(row * inputs, b)[order]
        total = np.float32(0)
        for term in terms:
            total += term
        outputs.append(total)
    return np.array(outputs, np.float32)


@settings(max_examples=150)
@given(data=st.data())
def test_no_order_of_summation_exceeds_the_bound(data: st.DataObject) -> None:
    pixels, hidden, classes = data.draw(st.tuples(*[st.integers(1, 4)] * 3))

    def draw(*shape: int) -> np.ndarray:
        size = int(np.prod(shape))
        values = data.draw(st.lists(ELEMENTS, min_size=size, max_size=size))
        return np.array(values, np.float32).reshape(shape)

    weights = {
        "linear1.weight": draw(hidden, pixels),
        "linear1.bias": draw(hidden),
        "linear2.weight": draw(classes, hidden),
        "linear2.bias": draw(classes),
    }
    image = draw(1, pixels)
    order1 = np.array(data.draw(st.permutations(range(pixels + 1))))
    order2 = np.array(data.draw(st.permutations(range(hidden + 1))))
    linear1 = float32_linear(weights["linear1.weight"], weights["linear1.bias"], image[0], order1)
    relu = np.maximum(linear1, np.float32(0))
    linear2 = float32_linear(weights["linear2.weight"], weights["linear2.bias"], relu, order2)
    computed = [image[0], image[0], linear1, relu, linear2, linear2]
    stages = mlp((1, pixels), hidden, classes)
    bounded = list(bounded_forward(stages, weights, image[None]))
    assert [stage.name for stage in bounded] == [stage.name for stage in stages]
    for stage, values, exact in zip(bounded, computed, exact_forward(weights, image), strict=True):
        for value, truth, bound in zip(values, exact, stage.bound.ravel(), strict=True):
            assert abs(Fraction(float(value)) - truth) <= Fraction(float(bound)), stage.name


def test_the_bound_of_one_linear_layer_is_its_formula() -> None:
    weights = {
        "linear1.weight": np.array([[1.0, -2.0, 4.0]], np.float32),
        "linear1.bias": np.array([0.5], np.float32),
        "linear2.weight": np.array([[1.0]], np.float32),
        "linear2.bias": np.array([0.0], np.float32),
    }
    image = np.array([[[0.5, 0.25, 0.0]]], np.float32)  # the third product rounds nothing
    stages = {s.name: s for s in bounded_forward(mlp((1, 3), 1, 1), weights, image)}
    gamma = 3 * UNIT_ROUNDOFF / (1 - 3 * UNIT_ROUNDOFF)  # two live products and the bias
    magnitude = 1 * 0.5 + 2 * 0.25 + 0.5
    np.testing.assert_allclose(stages["linear1"].bound, [[gamma * magnitude]], rtol=1e-12)
    assert stages["linear1"].value == [[0.5]]
    assert not stages["flatten"].bound.any()


def test_a_unit_that_is_surely_off_carries_no_error() -> None:
    weights = {
        "linear1.weight": np.array([[-1.0]], np.float32),
        "linear1.bias": np.array([-1.0], np.float32),
        "linear2.weight": np.array([[7.0]], np.float32),
        "linear2.bias": np.array([0.0], np.float32),
    }
    stages = {s.name: s for s in bounded_forward(mlp((1, 1), 1, 1), weights, np.ones((1, 1, 1)))}
    assert stages["linear1"].bound[0, 0] > 0
    assert stages["relu"].bound[0, 0] == 0
    assert stages["output"].bound[0, 0] == 0
