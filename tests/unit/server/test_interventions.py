"""Interventions in any order are the changes that a run makes, and wrong ones are named."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.architecture import mlp
from export.runtimes.changes import Changes, StageChanges
from forward.v1 import forward_pb2 as pb
from server.api.forward_v1.interventions import MAX_INTERVENTIONS, decode_interventions
from server.engine.interventions import (
    Add,
    Change,
    Clamp,
    FromImage,
    Intervention,
    Scale,
    Set,
    changes_of,
    joined,
)
from server.errors import Violation

IMAGES, UNITS = 3, 4
SIZES = {"relu": UNITS}
NUMBERS = st.floats(-8, 8, width=32)
STAGES = mlp((2, 2), [UNITS], 3)


@st.composite
def interventions(draw: st.DrawFn) -> Intervention:
    def positions(count: int) -> np.ndarray:
        return np.array(draw(st.permutations(range(count)))[: draw(st.integers(1, count))])

    units = positions(UNITS)
    low, high = sorted([draw(NUMBERS), draw(NUMBERS)])
    changes: list[Change] = [
        Set(np.array([draw(NUMBERS) for _ in units])),
        Set(np.array([draw(NUMBERS)])),
        Add(draw(NUMBERS)),
        Scale(draw(NUMBERS)),
        Clamp(low, high),
        Clamp(-np.inf, high),
        FromImage(draw(st.integers(0, IMAGES - 1))),
    ]
    return Intervention("relu", units, positions(IMAGES), draw(st.sampled_from(changes)))


def one_by_one(values: np.ndarray, interventions: Sequence[Intervention]) -> np.ndarray:
    """Apply interventions as their definition says, in float64."""
    values = values.astype(np.float64)
    for one in interventions:
        here = np.ix_(one.images, one.units)
        match one.change:
            case Set(given_values):
                values[here] = given_values
            case Add(number):
                values[here] += number
            case Scale(number):
                values[here] *= number
            case Clamp(low, high):
                values[here] = values[here].clip(low, high)
            case FromImage(image):
                values[here] = values[image, one.units]
    return values


def applied(values: np.ndarray, changes: Changes) -> np.ndarray:
    """Apply the changes of a run, as their definition says, in float64."""
    flat = values.astype(np.float64).ravel()
    at, source, scale, shift, low, high = changes["relu"]
    changed = flat.copy()
    changed[at] = np.minimum(np.maximum(flat[source] * scale + shift, low), high)
    return changed.reshape(values.shape)


@given(
    several=st.lists(interventions(), min_size=1, max_size=6),
    values=st.lists(NUMBERS, min_size=IMAGES * UNITS, max_size=IMAGES * UNITS),
)
def test_changes_are_the_interventions_one_by_one(
    several: list[Intervention], values: list[float]
) -> None:
    x = np.array(values, np.float32).reshape(IMAGES, UNITS)
    expected = one_by_one(x, several)
    found = applied(x, changes_of(several, SIZES))
    # Each number was rounded to float32 once; partial results may be larger than the last.
    largest = 8.0 ** (len(several) + 1) * 2
    np.testing.assert_allclose(found, expected, rtol=2.0**-22, atol=largest * 2.0**-23)
    untouched = np.ones((IMAGES, UNITS), bool)
    for one in several:
        untouched[np.ix_(one.images, one.units)] = False
    assert (found[untouched] == x[untouched]).all()


def test_a_scale_by_one_keeps_every_bit() -> None:
    x = np.array([[0.0, -0.0, 1e-45, -3.5]], np.float32)
    every = Intervention("relu", np.arange(4), np.arange(1), Scale(1.0))
    change: StageChanges = changes_of([every], SIZES)["relu"]
    scaled = (x.ravel()[change.source] * change.scale + change.shift).astype(np.float32)
    kept = np.minimum(np.maximum(scaled, change.low), change.high)
    assert kept.tobytes() == x.tobytes()


@given(st.lists(st.lists(interventions(), max_size=3), min_size=1, max_size=3))
def test_requests_of_a_run_change_their_own_rows(requests: list[list[Intervention]]) -> None:
    x = np.random.default_rng(0).normal(size=(IMAGES * len(requests), UNITS)).astype(np.float32)
    starts = [IMAGES * number for number in range(len(requests))]
    own = [changes_of(several, SIZES) for several in requests]
    together = joined(own, starts, SIZES)
    for start, changes in zip(starts, own, strict=True):
        rows = x[start : start + IMAGES]
        expected = applied(rows, changes) if changes else rows
        found = applied(x, together)[start : start + IMAGES] if together else rows
        np.testing.assert_array_equal(found, expected)


def violations(*messages: pb.Intervention, images: int | None = IMAGES) -> list[Violation]:
    found: list[Violation] = []
    decode_interventions(messages, STAGES, images, found)
    return found


@pytest.mark.parametrize(
    ("message", "field", "text"),
    [
        ({"stage": "rule", "zero": True}, "stage", "expected one of input, flatten, linear1, relu"),
        ({"stage": "output", "zero": True}, "stage", "nothing is computed; change 'linear2'"),
        ({"stage": "relu"}, "change", "expected one of zero, set, add"),
        ({"stage": "relu", "units": [4], "zero": True}, "units", "from 0 to 3, got 4"),
        ({"stage": "relu", "units": [-1], "zero": True}, "units", "from 0 to 3, got -1"),
        ({"stage": "relu", "units": [1, 1], "zero": True}, "units", "once, got one twice"),
        ({"stage": "relu", "images": [3], "zero": True}, "images", "from 0 to 2, got 3"),
        ({"stage": "relu", "zero": False}, "zero", "expected true"),
        ({"stage": "relu", "set": pb.Values(values=[1, 2])}, "set.values", "1 value or 4, one"),
        ({"stage": "relu", "set": pb.Values()}, "set.values", "got 0"),
        ({"stage": "relu", "set": pb.Values(values=[float("nan")])}, "set.values", "nan at 0"),
        ({"stage": "relu", "add": float("inf")}, "add", "finite number, got inf"),
        ({"stage": "relu", "scale": float("nan")}, "scale", "finite number, got nan"),
        ({"stage": "relu", "clamp": pb.Clamp()}, "clamp", "got neither"),
        ({"stage": "relu", "clamp": pb.Clamp(min=2, max=1)}, "clamp", "min up to max, got 2 and 1"),
        ({"stage": "relu", "clamp": pb.Clamp(min=float("nan"))}, "clamp.min", "finite"),
        ({"stage": "relu", "from_image": 3}, "from_image", "from 0 to 2, got 3"),
        ({"stage": "relu", "from_image": -1}, "from_image", "from 0 to 2, got -1"),
    ],
)
def test_a_wrong_intervention_is_named(message: dict[str, Any], field: str, text: str) -> None:
    (violation,) = violations(pb.Intervention(**message))
    assert violation.field == f"interventions[0].{field}"
    assert text in violation.description


def test_every_violation_of_several_is_named() -> None:
    wrong = pb.Intervention(stage="relu", units=[9], images=[9], add=float("nan"))
    found = violations(wrong, pb.Intervention(stage="relu", zero=True), wrong)
    assert [violation.field for violation in found] == [
        f"interventions[{index}].{field}"
        for index in (0, 2)
        for field in ("units", "images", "add")
    ]


def test_wrong_images_leave_the_rest_checked() -> None:
    message = pb.Intervention(stage="relu", units=[9], images=[7], from_image=7)
    found = violations(message, images=None)
    assert [violation.field for violation in found] == ["interventions[0].units"]


def test_interventions_are_limited_in_number_and_range() -> None:
    many = [pb.Intervention(stage="relu", zero=True)] * (MAX_INTERVENTIONS + 1)
    assert [one.field for one in violations(*many)] == ["interventions"]
    assert violations(*many[1:]) == []
    twice = [pb.Intervention(stage="relu", scale=1e30)] * 2
    assert [one.description for one in violations(*twice)] == [
        "those of stage 'relu' together leave the range of float32"
    ]
