"""Interventions of the client: their text, their checks, and what a server reads of them."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from export.architecture import mlp
from forward_client import Intervention
from forward_client.changes import Add, Change, Clamp, FromImage, Scale, Set
from forward_client.interventions import LARGEST
from server.api.forward_v1.interventions import decode_interventions
from server.engine import interventions as engine
from server.errors import Violation

STAGES = mlp((4, 5), [6], 3)
CHANGEABLE = {stage.name: stage.size for stage in STAGES[:-1]}
IMAGES = 7
NUMBERS = st.floats(-LARGEST, LARGEST, allow_nan=False) | st.integers(-9, 9).map(float)


def positions(size: int) -> st.SearchStrategy[tuple[int, ...] | None]:
    """Some positions in any order, or None for all."""
    some = st.lists(st.integers(0, size - 1), min_size=1, unique=True).map(tuple)
    return st.none() | some | st.integers(0, size - 1).map(lambda last: tuple(range(last + 1)))


@st.composite
def interventions(draw: st.DrawFn) -> Intervention:
    stage = draw(st.sampled_from(sorted(CHANGEABLE)))
    size = CHANGEABLE[stage]
    units = draw(positions(size))
    count = draw(st.sampled_from([1, size if units is None else len(units)]))
    bounds = st.lists(NUMBERS, min_size=2, max_size=2).map(sorted)
    changes: st.SearchStrategy[Change] = st.one_of(
        st.lists(NUMBERS, min_size=count, max_size=count).map(lambda some: Set(tuple(some))),
        NUMBERS.map(Add),
        NUMBERS.map(Scale),
        bounds.map(lambda pair: Clamp(*pair)),
        NUMBERS.map(lambda low: Clamp(low, None)),
        NUMBERS.map(lambda high: Clamp(None, high)),
        st.integers(0, IMAGES - 1).map(FromImage),
    )
    return Intervention(stage, draw(changes), units, draw(positions(IMAGES)))


@given(interventions())
def test_the_printed_text_reads_back_the_same(intervention: Intervention) -> None:
    assert repr(Intervention.parse(str(intervention))) == repr(intervention)  # -0.0 is not 0.0


@given(st.text("relu1[]@.,=+-*e0 ", max_size=14))
def test_any_text_is_a_change_or_refused(text: str) -> None:
    try:
        intervention = Intervention.parse(text)
    except ValueError:
        return
    assert repr(Intervention.parse(str(intervention))) == repr(intervention)


def meant(change: Change) -> engine.Change:
    """Return the server's form of a change, with numbers of float32."""
    match change:
        case Set(values):
            return engine.Set(np.array(values, np.float32))
        case Add(number):
            return engine.Add(float(np.float32(number)))
        case Scale(number):
            return engine.Scale(float(np.float32(number)))
        case Clamp(low, high):
            bounds = (-math.inf if low is None else low, math.inf if high is None else high)
            return engine.Clamp(*(float(np.float32(bound)) for bound in bounds))
        case FromImage(image):
            return engine.FromImage(image)


@example(Intervention.set("relu", to=-0.0))
@given(interventions())
def test_a_server_reads_what_was_meant(intervention: Intervention) -> None:
    violations: list[Violation] = []
    (found,) = decode_interventions([intervention.message()], STAGES, IMAGES, violations)
    assert violations == []
    assert found.stage == intervention.stage
    all_units, all_images = range(CHANGEABLE[intervention.stage]), range(IMAGES)
    assert found.units.tolist() == list(intervention.units or all_units)
    assert found.images.tolist() == list(intervention.images or all_images)
    change = meant(intervention.change)
    assert type(found.change) is type(change)
    for part, expected in zip(found.change, change, strict=True):
        bits = [np.asarray(each, np.float64).tobytes() for each in (part, expected)]
        assert bits[0] == bits[1]  # -0.0 is not 0.0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("relu[3,17]=0", Intervention.zero("relu", [3, 17])),
        ("relu[3,17]=0.5,-2", Intervention.set("relu", [3, 17], to=[0.5, -2])),
        ("relu=1e-3", Intervention.set("relu", to=0.001)),
        ("linear1+=1.5", Intervention.add("linear1", number=1.5)),
        ("linear1-=1.5", Intervention.add("linear1", number=-1.5)),
        ("linear1*=0.5", Intervention.scale("linear1", by=0.5)),
        ("relu[0..3,9]=0..6", Intervention.clamp("relu", [0, 1, 2, 3, 9], min=0, max=6)),
        ("relu=..6", Intervention.clamp("relu", max=6)),
        ("relu=-1..", Intervention.clamp("relu", min=-1)),
        ("relu@0,2=@1", Intervention.patch("relu", image=1, images=[0, 2])),
    ],
)
def test_each_form_of_the_text_is_its_change(text: str, expected: Intervention) -> None:
    assert Intervention.parse(text) == expected


def test_positions_are_whatever_numpy_finds() -> None:
    off = np.flatnonzero(np.array([True, False, True]))
    found = Intervention.set("relu", off, to=np.ones(2, np.float32))
    assert found == Intervention("relu", Set((1.0, 1.0)), (0, 2))
    assert str(found) == "relu[0,2]=1,1"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected the name of a stage at character 1, got the end"),
        ("relu", "expected =, +=, -= or *= at character 5, got the end"),
        ("relu =0", "expected =, +=, -= or *= at character 5, got ' =0'"),
        ("relu[]=0", "expected a unit, from 0, at character 6, got ']=0'"),
        ("relu[-1]=0", "expected a unit, from 0, at character 6, got '-1]=0'"),
        ("relu[3=0", "expected ',', '..' or ']' at character 7, got '=0'"),
        ("relu[9..3]=0", "expected a unit from 9 on at character 9, got '3]=0'"),
        ("relu[0..9999999999]=0", "and up to 1048576 positions at character 9"),
        ("relu@=0", "expected an image, from 0, at character 6, got '=0'"),
        ("relu=", "expected a number, '..' or @ and an image at character 6, got the end"),
        ("relu=nan", "at character 6, got 'nan'"),
        ("relu=.5", "at character 6, got '.5'"),
        ("relu=1,", "expected a number at character 8, got the end"),
        ("relu=1...5", "expected a number at character 9, got '.5'"),
        ("relu=0 ", "expected the end at character 7, got ' '"),
        ("relu*=1..2", "expected the end at character 8, got '..2'"),
        ("relu=٣", "at character 6"),  # a digit of another script
        ("relu[3,3]=0", "expected each position of units once, got 3 twice"),
        ("relu=1e39", "expected values from -3.40282e+38 to 3.40282e+38"),
        ("relu=2..1", "expected min up to max, got 2 and 1"),
        ("relu[1,2]=1,2,3", "expected 1 value or 2, one for each unit, got 3"),
        ("relu[3]=1,2", "expected 1 value, got 2"),
        ("relu[3000000000]=0", "expected units from 0 to 2147483647, got 3000000000"),
    ],
)
def test_a_wrong_text_is_refused_with_the_place(text: str, message: str) -> None:
    with pytest.raises(ValueError, match="expected") as refused:
        Intervention.parse(text)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"stage": ""}, "expected the name of a stage, got ''"),
        ({"stage": 3}, "expected the name of a stage, got 3"),
        ({"units": []}, "expected at least one position as units, or None for all, got none"),
        ({"units": 3}, "expected positions as units, for example [3, 17], got 3"),
        ({"units": "3"}, "expected positions as units, for example [3, 17], got '3'"),
        ({"units": [1.0]}, "expected whole numbers as units, got 1.0"),
        ({"units": [True, False]}, "expected whole numbers as units, got True"),
        ({"units": np.array([True])}, "expected whole numbers as units, got np.True_"),
        ({"units": [-1]}, "expected units from 0 to 2147483647, got -1"),
        ({"images": [0, 0]}, "expected each position of images once, got 0 twice"),
        ({"to": math.nan}, "as float32 has them, got nan"),
        ({"to": "1"}, "expected a number as a value, got '1'"),
        ({"to": []}, "expected one value, or one for each unit, got none"),
        ({"to": True}, "expected a number as a value, got True"),
        ({"to": [[1.0]]}, "expected a number as values, got [1.0]"),
    ],
    ids=str,
)
def test_a_meaningless_intervention_is_refused_at_once(
    arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match="expected") as refused:
        Intervention.set(**{"stage": "relu", "to": 1.0, **arguments})
    assert message in str(refused.value)


def test_other_meaningless_changes_are_refused() -> None:
    with pytest.raises(ValueError, match="expected min, max or both, got neither"):
        Intervention.clamp("relu")
    with pytest.raises(ValueError, match="expected a number as min, got 'x'"):
        Intervention.clamp("relu", min="x")  # type: ignore[arg-type] # that is the question
    with pytest.raises(ValueError, match="expected image from 0"):
        Intervention.patch("relu", image=-1)
    with pytest.raises(ValueError, match="expected a Set, Add, Scale, Clamp or FromImage, got 0"):
        Intervention("relu", 0)  # type: ignore[arg-type] # that is the question
