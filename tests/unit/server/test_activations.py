"""What a trace returns: statistics, top values, sizes, and the plan of a request."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from export.architecture import flops_per_image, mlp, parameter_shapes
from export.parity.certificates import Prover
from forward.v1 import forward_pb2 as pb
from forward_client.messages import DETAILS
from server.api.forward_v1.activations import plan_trace, put_stage, response_bytes, top_values
from server.api.forward_v1.certificates import put_proof
from server.engine.activations import RunStatistics, Statistics, TracedRun, statistics
from server.errors import Violation

STAGES = mlp((3, 5), [4], 2)
NAMES = [stage.name for stage in STAGES]
WEIGHTS = {
    name: np.full(shape, -3.0, np.float32) for name, shape in parameter_shapes(STAGES).items()
}
PROVER = Prover(STAGES, WEIGHTS)
SHAPES = st_numpy.array_shapes(min_dims=2, max_dims=3, max_side=6)
ARRAYS = st_numpy.arrays(np.float32, SHAPES, elements=st.floats(-1e6, 1e6, width=32))


@given(ARRAYS)
def test_statistics_are_those_of_float64_torch(array: np.ndarray) -> None:
    check_statistics(statistics(array), array)


@given(ARRAYS, st.data())
def test_statistics_of_any_rows_are_float64_torchs(array: np.ndarray, data: st.DataObject) -> None:
    run = RunStatistics(beside(array))
    for rows in split_of(array, data):
        check_statistics(of(run, rows), array[rows])


STAGE = "between"


def beside(array: np.ndarray) -> dict[str, np.ndarray]:
    """Return a run with a stage before and one behind, which must not show in its statistics."""
    others = np.full((len(array), 3), 7e6, np.float32), np.full((len(array), 1), np.inf, np.float32)
    return {"before": others[0], STAGE: array, "behind": others[1]}


def of(run: RunStatistics, rows: slice) -> Statistics:
    return run.of(STAGE, rows)


def split_of(array: np.ndarray, data: st.DataObject) -> list[slice]:
    """Return the rows of each request, for a drawn split of a run into requests."""
    between = data.draw(st.sets(st.integers(1, max(1, len(array) - 1))))
    edges = sorted({0, len(array), *(edge for edge in between if edge < len(array))})
    return [slice(*pair) for pair in pairwise(edges)]


def check_statistics(found: Statistics, array: np.ndarray) -> None:
    oracle = torch.from_numpy(array).to(torch.float64)
    expected = {
        "min": oracle.min().item(),
        "max": oracle.max().item(),
        "mean": oracle.mean().item(),
        "standard_deviation": oracle.std(correction=0).item(),
        "l2_norm": torch.linalg.vector_norm(oracle).item(),
        "zero_share": (oracle == 0).to(torch.float64).mean().item(),
    }
    scale = float(oracle.abs().max())
    for name, value in expected.items():
        # What cancels is as exact as its terms; below 2^-149 there is no float32.
        cancels = 1e-7 * scale if name in {"mean", "standard_deviation"} else 0.0
        allowed = max(cancels, 2.0**-149)
        assert math.isclose(getattr(found, name), value, rel_tol=1e-6, abs_tol=allowed), name
    assert (found.nan_count, found.infinity_count) == (0, 0)


@given(ARRAYS, st.data())
def test_non_finite_values_change_no_other_request(array: np.ndarray, data: st.DataObject) -> None:
    parts = split_of(array, data)
    spoiled = data.draw(st.sampled_from(parts))
    broken = array.copy()
    flat = broken[spoiled].reshape(-1)
    value = data.draw(st.sampled_from([np.nan, np.inf, -np.inf]))
    flat[data.draw(st.integers(0, flat.size - 1))] = value
    run, whole = RunStatistics(beside(broken)), RunStatistics(beside(array))
    for rows in parts:
        if rows == spoiled:
            found = of(run, rows)
            assert found == statistics(broken[rows])
            assert found.nan_count == np.isnan(value)
            assert found.infinity_count == np.isinf(value)
        else:
            assert of(run, rows) == of(whole, rows)


def test_statistics_skip_and_count_non_finite_values() -> None:
    found = statistics(np.array([[np.nan, np.inf, -np.inf, 0, 3]], np.float32))
    assert (found.nan_count, found.infinity_count) == (1, 2)
    assert (found.min, found.max, found.mean) == (0, 3, 1.5)
    assert found.zero_share == pytest.approx(0.2)
    nothing = statistics(np.full((1, 2), np.nan, np.float32))
    assert nothing.nan_count == 2
    assert math.isnan(nothing.mean)


@given(ARRAYS, st.integers(1, 40))
def test_top_values_are_torchs_lower_positions_first(array: np.ndarray, count: int) -> None:
    rows = torch.from_numpy(array).flatten(1)
    oracle = torch.sort(rows, dim=1, descending=True, stable=True)
    found = top_values(array, count)
    assert len(found) == len(array)
    for image, top in enumerate(found):
        assert list(top.values) == oracle.values[image, :count].tolist()
        assert list(top.indices) == oracle.indices[image, :count].tolist()


@given(data=st.data(), images=st.integers(1, 9), top_k=st.integers(0, 20))
def test_the_predicted_size_is_a_close_bound(data: st.DataObject, images: int, top_k: int) -> None:
    chosen = data.draw(st.lists(st.sampled_from(NAMES), unique=True))
    detail = st.sampled_from([*DETAILS.values(), pb.DETAIL_UNITS])
    details = [data.draw(detail) for _ in chosen]
    certify = data.draw(st.booleans())
    request = pb.TraceRequest(
        stages=[pb.StageSelection(name=n, detail=d) for n, d in zip(chosen, details, strict=True)],
        top_k_count=top_k,
        certify=certify,
    )
    violations: list[Violation] = []
    plan = plan_trace(request, STAGES, images, violations)
    assert not violations
    flops = flops_per_image(STAGES)
    others = 2  # images of other requests, in the same run
    arrays = {s.name: np.full((images + others, *s.shape), -1.5, np.float32) for s in STAGES}
    run = TracedRun(arrays, arrays["output"], 1.0)
    response = pb.TraceResponse(
        logits=pb.Tensor(dtype=pb.DATA_TYPE_FLOAT32, shape=[images, 2], data=bytes(images * 8)),
        model=pb.ModelIdentity(name="a" * 60, version=2**40, runtime="torchscript"),
        queue_seconds=1.0,
        run_seconds=1.0,
    )
    for stage in STAGES:
        if stage.name in plan.details:
            traced = response.stages.add()
            traced.flops_per_image = flops[stage.name]
            put_stage(stage, plan, run, slice(1, 1 + images), traced)
    if certify:
        put_proof(PROVER.prove(arrays["input"][:images], "float32"), response)
    foretold = response_bytes(plan, STAGES, images)
    units = details.count(pb.DETAIL_UNITS) * (256 + 5 * 64)
    slack = 256 * (len(plan.details) + 2) + images * (len(plan.details) * 48 + 64) + units
    assert response.ByteSize() <= foretold <= response.ByteSize() + slack


def test_stages_come_in_order_with_their_details() -> None:
    request = pb.TraceRequest(
        stages=[
            pb.StageSelection(name="output", detail=pb.DETAIL_TOP_K),
            pb.StageSelection(name="flatten"),
        ],
        detail=pb.DETAIL_FULL,
    )
    plan = plan_trace(request, STAGES, 1, [])
    assert list(plan.details.items()) == [("flatten", pb.DETAIL_FULL), ("output", pb.DETAIL_TOP_K)]


def test_without_names_all_stages_come_with_statistics() -> None:
    plan = plan_trace(pb.TraceRequest(), STAGES, 1, [])
    assert plan.details == dict.fromkeys(NAMES, pb.DETAIL_STATISTICS)


def test_every_fault_of_a_selection_is_named() -> None:
    request = pb.TraceRequest(
        stages=[pb.StageSelection(name=n) for n in ("relu", "softmax", "relu")], top_k_count=-1
    )
    request.detail = 9  # type: ignore[assignment] # proto3 enums carry any number
    violations: list[Violation] = []
    plan_trace(request, STAGES, 1, violations)
    assert [violation.field for violation in violations] == [
        "detail",
        "top_k_count",
        "stages[1].name",
        "stages[2].name",
    ]
    assert "expected one of input, flatten, linear1" in violations[2].description
    assert "got 'softmax'" in violations[2].description


def test_many_long_unknown_stages_give_a_short_error() -> None:
    request = pb.TraceRequest(stages=[pb.StageSelection(name="x" * 1000)] * 100_000)
    violations: list[Violation] = []
    plan_trace(request, STAGES, 1, violations)
    assert 1 <= len(violations) <= 100
    assert max(len(violation.description) for violation in violations) < 250


def test_flops_count_multiplications_and_additions() -> None:
    assert flops_per_image(mlp((28, 28), [128], 10)) == {
        "input": 0,
        "flatten": 0,
        "linear1": 2 * 784 * 128,
        "relu": 128,
        "linear2": 2 * 128 * 10,
        "output": 0,
    }
