"""The error bound is never exceeded, in no order and at no precision, and is its formula."""

from collections.abc import Sequence
from fractions import Fraction
from itertools import takewhile
from math import prod
from random import Random
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings, target
from hypothesis import strategies as st

from export.architecture import Operation, Precision, Stage, check_chain, mlp
from export.parity.bounds import Changed, Reference, bounded, changed_bound
from export.runtimes.changes import StageChanges
from export.runtimes.numpy import NumpyRunner
from tests.support.arithmetic import (
    DEVICES,
    EXACT,
    FLOAT32,
    Format,
    fractions,
    precision_of,
)
from tests.support.bundles import random_images, reference_of
from tests.support.simulation import Weights, simulate

# Magnitudes far apart make sums cancel and absorb; 0 makes terms that round nothing.
ELEMENTS = st.one_of(
    st.just(0.0),
    st.floats(-1e3, 1e3, width=32),
    st.floats(-(2.0**-10), 2.0**-10, width=32),
    st.sampled_from(
        [1.0, -1.0, 2.0**24, -(2.0**24), 1 + 2.0**-23, 2.0**-149, 2.0**-127, 2.0**-126]
    ),
)


@st.composite
def networks(draw: st.DrawFn) -> tuple[list[Stage], Weights, np.ndarray]:
    """Any stack of Linear and ReLU behind a Flatten, its weights and one image."""

    def stage(name: str, operation: Operation, *shape: int) -> Stage:
        return Stage(name=name, operation=operation, description="", shape=shape, values={})

    def values(*shape: int) -> np.ndarray:
        numbers = draw(st.lists(ELEMENTS, min_size=prod(shape), max_size=prod(shape)))
        return np.array(numbers, np.float32).reshape(shape)

    width = draw(st.integers(1, 4))
    stages = [stage("input", "Input", 1, width), stage("flatten", "Flatten", width)]
    weights: Weights = {}
    image = values(1, 1, width)
    for number, out in enumerate(draw(st.lists(st.integers(0, 4), min_size=1, max_size=5))):
        if out == 0:
            stages.append(stage(f"relu{number}", "ReLU", width))
            continue
        name = f"linear{number}"
        weights[f"{name}.weight"], weights[f"{name}.bias"] = values(out, width), values(out)
        stages.append(stage(name, "Linear", out))
        width = out
    stages.append(stage("output", "Output", width))
    check_chain(stages)
    return stages, weights, image


Outputs = dict[str, list[Fraction]]  # of one image, by stage


def in_fractions(reference: Reference, stages: Sequence[Stage]) -> tuple[Outputs, Outputs]:
    """Return the oracle's outputs and their bounds, of the stages before one that may overflow.

    The simulated formats can not overflow.
    """
    names = [stage.name for stage in stages]
    names = list(takewhile(lambda name: np.isfinite(reference.bounds[name]).all(), names))
    oracle, bounds = (
        {name: fractions(part[name]) for name in names}
        for part in (reference.values, reference.bounds)
    )
    return oracle, bounds


def used_share(reference: tuple[Outputs, Outputs], exact: Outputs, found: Outputs) -> float:
    """Check every element of a simulated pass; return the largest share of its bound."""
    used = 0.0
    oracle, bounds = reference
    for stage in oracle:
        # Both the exact value and the float64 oracle must be that near.
        for value, truth, near, bound in zip(
            found[stage], exact[stage], oracle[stage], bounds[stage], strict=True
        ):
            assert abs(value - truth) <= bound, stage
            assert abs(value - near) <= bound, stage
            used = max(used, float(abs(value - truth) / bound) if bound else 0.0)
    return used


@settings(max_examples=150)
@given(network=networks(), random=st.randoms(use_true_random=False))
def test_no_arithmetic_of_its_precision_exceeds_the_bound(
    network: tuple[list[Stage], Weights, np.ndarray], random: Random
) -> None:
    """Every device with the same networks: drawing one takes longer than a simulated pass."""
    stages, weights, image = network
    exact = simulate(EXACT, stages, weights, image, random)
    references = {
        precision: in_fractions(reference_of(stages, weights, image, precision), stages)
        for precision in get_args(Precision)
    }
    for device, arithmetic in DEVICES.items():
        found = simulate(arithmetic, stages, weights, image, random)
        # hypothesis looks for what uses most of the bound
        target(used_share(references[precision_of(device)], exact, found), label=device)


@pytest.mark.parametrize(
    ("form", "value", "expected"),
    [
        (FLOAT32, Fraction(0.1), float(np.float32(0.1))),
        (FLOAT32, Fraction(1) + Fraction(3, 2**24), 1 + 2.0**-22),
        (FLOAT32, Fraction(3, 2**150), 2.0**-148),
        (Format(8), Fraction(1) + Fraction(1, 2**8), 1.0),
        (Format(11, truncates=True), -Fraction(4095, 2048), -2047 / 1024),
        (Format(24, flushes_subnormals=True), Fraction(1, 2**127), 0.0),
    ],
)
def test_simulated_formats_round_as_the_real_ones(
    form: Format, value: Fraction, expected: float
) -> None:
    assert form.round(value) == Fraction(expected)


@given(st.floats(width=64, allow_nan=False, allow_infinity=False, min_value=-1e38, max_value=1e38))
def test_simulated_float32_matches_numpy(value: float) -> None:
    assert FLOAT32.round(Fraction(value)) == Fraction(float(np.float32(value)))


def test_sums_that_cancel_need_the_bound() -> None:
    """1e8 + 1 - 1e8 is 0 in float32 though it is 1."""
    stages = [s for s in mlp((1, 2), [1], 1) if s.name in {"input", "flatten", "linear1"}]
    stages.append(stages[-1].model_copy(update={"name": "output", "operation": "Output"}))
    weights = {
        "linear1.weight": np.array([[1e8, 1.0]], np.float32),
        "linear1.bias": np.array([-1e8], np.float32),
    }
    reference = reference_of(stages, weights, np.ones((1, 1, 2)))
    assert reference.values["linear1"] == [[1.0]]
    assert (np.float32(1e8) + np.float32(1)) - np.float32(1e8) == 0
    assert 1 <= reference.bounds["linear1"] <= 50


def two_layers() -> tuple[Weights, np.ndarray]:
    """Return the weights of two layers of one unit, and an image whose last product is 0."""
    weights = {
        "linear1.weight": np.array([[1.0, -2.0, 4.0]], np.float32),
        "linear1.bias": np.array([0.5], np.float32),
        "linear2.weight": np.array([[-3.0]], np.float32),
        "linear2.bias": np.array([0.25], np.float32),
    }
    return weights, np.array([[[2.0, 0.25, 0.0]]], np.float32)


def gamma(n: int, u: float) -> float:
    return n * u / (1 - n * u)


@pytest.mark.parametrize(("precision", "v"), [("tf32", 2.0**-10), ("bfloat16", 2.0**-8)])
def test_two_linear_layers_have_the_bound_of_the_formula(precision: Precision, v: float) -> None:
    weights, image = two_layers()
    reference = reference_of(mlp((1, 3), [1], 1), weights, image, precision)
    u = 2.0**-22 + 2.0**-53  # the runtime's roundings and the oracle's
    c = 2 * v + v**2
    magnitude = 1 * 2 + 2 * 0.25
    # Two live products and the bias.
    first = c * magnitude + gamma(3, u) * ((1 + c) * magnitude + 0.5)
    first *= 1 + 2.0**-30  # what computing the bound may lose
    np.testing.assert_allclose(reference.bounds["linear1"], [[first]], rtol=1e-14)
    assert reference.values["relu"] == [[2.0]]
    reach = 3 * (2.0 + first)
    second = 3 * first + c * reach + gamma(2, u) * ((1 + c) * reach + 0.25)
    second *= 1 + 2.0**-30
    np.testing.assert_allclose(reference.bounds["output"], [[second]], rtol=1e-14)
    assert not reference.bounds["flatten"].any()


def test_float32_has_the_bound_of_partial_sums() -> None:
    weights, image = two_layers()
    reference = reference_of(mlp((1, 3), [1], 1), weights, image)
    u = 2.0**-24 + 2.0**-53
    own = 1 + 2.0**-30
    # 0.5 + 1·2 is positive, -2·0.25 negative: the larger of both sums is 2.5.
    first = (u * 2.5 + (1 + u) * gamma(2, u) * 2.5) * own
    np.testing.assert_allclose(reference.bounds["linear1"], [[first]], rtol=1e-14)
    # 0.25 is positive, -3·2 negative, and may be larger by what is carried.
    largest = 6 + 3 * first
    second = (3 * first + u * 3 * (2 + first) + (1 + u) * gamma(1, u) * largest) * own
    np.testing.assert_allclose(reference.bounds["output"], [[second]], rtol=1e-14)
    assert not reference.bounds["flatten"].any()


@st.composite
def stage_changes(draw: st.DrawFn, size: int) -> StageChanges:
    """Any changes of the elements of one stage of one image."""
    count = draw(st.integers(0, size))
    at = draw(st.permutations(range(size)))[:count]
    source = [draw(st.integers(0, size - 1)) for _ in at]
    scale = [draw(st.sampled_from([0.0, 1.0, -1.0, 0.1, -3.3, 2.0**-100])) for _ in at]
    shift = [draw(st.one_of(st.just(-0.0), ELEMENTS)) for _ in at]
    bounds = np.array([sorted(draw(st.tuples(NUMBERS, NUMBERS))) for _ in at]).reshape(-1, 2)
    low = np.where([draw(st.booleans()) for _ in at], bounds[:, 0], -np.inf)
    high = np.where([draw(st.booleans()) for _ in at], bounds[:, 1], np.inf)
    numbers = (np.array(part, np.float32) for part in (scale, shift, low, high))
    return StageChanges(np.array(at, np.int64), np.array(source, np.int64), *numbers)


NUMBERS = st.one_of(st.just(1.0), st.floats(-10, 10, width=32))


@settings(max_examples=60)
@given(network=networks(), random=st.randoms(use_true_random=False), data=st.data())
def test_no_arithmetic_exceeds_the_bound_with_changes(
    network: tuple[list[Stage], Weights, np.ndarray], random: Random, data: st.DataObject
) -> None:
    stages, weights, image = network
    drawn = {stage.name: data.draw(stage_changes(stage.size)) for stage in stages[:-1]}
    changes = {name: parts for name, parts in drawn.items() if parts.at.size}
    exact = simulate(EXACT, stages, weights, image, random, changes)
    values, before = NumpyRunner(stages, weights).trace_both(image, changes)
    reference = bounded(stages, weights, values, "float32", Changed(changes, before))
    near = in_fractions(reference, stages)
    for device in ("float32", "float32 fused"):
        found = simulate(DEVICES[device], stages, weights, image, random, changes)
        target(used_share(near, exact, found), label=device)


def test_a_change_has_the_bound_of_the_formula() -> None:
    """Scaled, moved, copied from another unit, held by a bound, constant, far beyond a bound."""
    value = np.array([[2.0, -1.0, 5.0, 7.0, 3.0, 9.0]])
    bound = np.array([[0.01, 0.02, 0.03, 0.04, 0.05, 0.06]])
    parts = (
        np.array([0.1, 1.0, 1.0, 1.0, 1.0, 1.0], np.float32),
        np.array([0.5, -0.0, -0.0, -0.0, -0.0, -0.0], np.float32),
        np.array([-np.inf, -np.inf, -np.inf, 7.0, 4.0, -np.inf], np.float32),
        np.array([np.inf, np.inf, 5.0, 7.0, np.inf, 8.99], np.float32),
    )
    at, source = np.arange(6), np.array([0, 5, 2, 3, 4, 5])
    found = changed_bound(StageChanges(at, source, *parts), value, bound, "float32")
    u, scale = 2.0**-24 + 2.0**-53, float(np.float32(0.1))
    product = u * scale * 2.01
    scaled = scale * 0.01 + product
    scaled += u * (scale * 2 + 0.5 + scaled) + 2.0**-148
    own = 1 + 2.0**-30
    expected = [[scaled * own, 0.06 * own, 0.03 * own, 0.0, 0.0, 0.06 * own]]
    np.testing.assert_allclose(found, expected, rtol=1e-14)


def tiny_network(
    weight: list[float], bias: float, then: float = 1.0
) -> tuple[tuple[Stage, ...], Weights]:
    """Return a network of one unit: weight · x + bias, ReLU, times `then`."""
    weights = {
        "linear1.weight": np.array([weight], np.float32),
        "linear1.bias": np.array([bias], np.float32),
        "linear2.weight": np.array([[then]], np.float32),
        "linear2.bias": np.array([0.0], np.float32),
    }
    return mlp((1, len(weight)), [1], 1), weights


def test_a_unit_turned_on_by_rounding_is_bounded() -> None:
    """1e8 + 1 - 2 - 1e8 is -1, but ((-1e8 - 2) + 1e8) + 1 is 1 in float32, and ReLU passes it."""
    stages, weights = tiny_network([1e8, 1.0, -2.0], bias=-1e8, then=0.5)
    reference = reference_of(stages, weights, np.ones((1, 1, 3)))
    assert reference.values["linear1"] == [[-1.0]]
    big, one, two = np.float32(1e8), np.float32(1), np.float32(-2)
    assert ((-big + two) + big) + one == 1
    assert reference.bounds["relu"] >= 1
    assert reference.bounds["output"] >= 0.5


def test_an_uncertain_input_counts_as_a_rounded_term() -> None:
    """The hidden unit is 0 exactly; what a runtime has in its place is rounded once more."""
    stages, weights = tiny_network([1.0, -1.0], bias=0.0, then=3.0)
    reference = reference_of(stages, weights, np.ones((1, 1, 2)))
    assert reference.values["relu"] == [[0.0]]
    carried = 3 * reference.bounds["relu"][0, 0]
    one_product = carried * (1 + 2 * 2.0**-24)  # it and its sum with the bias
    assert reference.bounds["output"][0, 0] >= one_product


def test_a_flushed_subnormal_is_within_the_bound() -> None:
    stages, weights = tiny_network([1000.0], bias=0.0)
    image = np.full((1, 1, 1), 2.0**-127, np.float32)
    found = simulate(DEVICES["tf32 flushing"], list(stages), weights, image, Random(0))  # noqa: S311 (an order, no secret)
    assert found["linear1"] == [0]
    bound = reference_of(stages, weights, image, "tf32").bounds["linear1"]
    assert 1000 * 2.0**-127 <= bound <= 3000 * 2.0**-126


def test_a_possible_overflow_has_no_finite_bound() -> None:
    """3e38 + 3e38 - 3e38 is 3e38, or infinity on the way."""
    stages, weights = tiny_network([3e38, 3e38, -3e38], bias=0.0, then=0.0)
    reference = reference_of(stages, weights, np.ones((1, 1, 3)))
    assert np.isfinite(reference.values["linear1"]).all()
    for name in ("linear1", "relu", "output"):
        assert np.isinf(reference.bounds[name]).all(), name
    stages, weights = tiny_network([1e38, 1e38, -1e38], bias=0.0)
    assert np.isfinite(reference_of(stages, weights, np.ones((1, 1, 3))).bounds["output"]).all()


def test_a_certainly_inactive_unit_has_no_error() -> None:
    weights = {
        "linear1.weight": np.array([[-1.0]], np.float32),
        "linear1.bias": np.array([-1.0], np.float32),
        "linear2.weight": np.array([[7.0]], np.float32),
        "linear2.bias": np.array([0.0], np.float32),
    }
    bounds = reference_of(mlp((1, 1), [1], 1), weights, np.ones((1, 1, 1))).bounds
    assert bounds["linear1"][0, 0] > 0
    assert bounds["relu"][0, 0] == 0
    assert bounds["output"][0, 0] == 0


def test_the_oracle_is_the_exact_forward_pass() -> None:
    """NumPy's float64 against fractions, on a network larger than hypothesis draws."""
    stages = list(mlp((3, 5), [4], 2))
    generator = np.random.default_rng(0)
    weights = {
        "linear1.weight": generator.normal(size=(4, 15)).astype(np.float32),
        "linear1.bias": generator.normal(size=4).astype(np.float32),
        "linear2.weight": generator.normal(size=(2, 4)).astype(np.float32),
        "linear2.bias": generator.normal(size=2).astype(np.float32),
    }
    for image in random_images(20, (3, 5)):
        exact = simulate(EXACT, stages, weights, image, Random(0))  # noqa: S311 (an order, no secret)
        oracle = NumpyRunner(stages, weights).trace(image[None])
        for stage in stages:
            np.testing.assert_allclose(
                oracle[stage.name].ravel(), [float(v) for v in exact[stage.name]], atol=1e-14
            )
