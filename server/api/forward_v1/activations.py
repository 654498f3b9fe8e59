"""What a trace returns: which stages, in how much detail, at what size."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from export.architecture import Stage
from forward.v1 import forward_pb2 as pb
from server.api.forward_v1.certificates import certificate_bytes, put_units, unit_bytes
from server.api.forward_v1.codec import encode_into, put_statistics
from server.api.forward_v1.interventions import decode_interventions
from server.api.sizes import ENTRY_OVERHEAD_BYTES, MAX_VIOLATIONS, STAGE_OVERHEAD_BYTES
from server.engine.activations import TracedRun, largest
from server.engine.instance import TraceSpec
from server.errors import Violation, quote

DEFAULT_TOP_K = 5
# In the order of their size; the names are those of a label.
DETAILS = {
    pb.DETAIL_STATISTICS: "statistics",
    pb.DETAIL_TOP_K: "top_k",
    pb.DETAIL_UNITS: "units",
    pb.DETAIL_FULL: "full",
}


@dataclass(frozen=True)
class TracePlan:
    """The stages to return, in the model's order, each with its detail."""

    details: dict[str, pb.Detail]
    top_k: int
    spec: TraceSpec


def plan_trace(
    request: pb.TraceRequest,
    stages: Sequence[Stage],
    images: int | None,
    violations: list[Violation],
) -> TracePlan:
    """Return the plan of a request; append what is wrong with it to `violations`.

    `images` is how many there are, None if they are not right.
    """
    default = request.detail or pb.DETAIL_STATISTICS
    _check_detail("detail", request.detail, violations)
    if request.top_k_count < 0:
        violations.append(
            Violation("top_k_count", f"expected 0 (the default) or more, got {request.top_k_count}")
        )
    names = [stage.name for stage in stages]
    chosen: dict[str, pb.Detail] = {}
    for index, selection in enumerate(request.stages):
        path = f"stages[{index}]"
        _check_detail(f"{path}.detail", selection.detail, violations)
        if selection.name not in names:
            violations.append(
                Violation(
                    f"{path}.name",
                    f"expected one of {', '.join(names)}, got {quote(selection.name)}",
                )
            )
        elif selection.name in chosen:
            violations.append(Violation(f"{path}.name", f"{quote(selection.name)} is named twice"))
        chosen[selection.name] = selection.detail or default
        if len(violations) >= MAX_VIOLATIONS:
            break
    if not request.stages:
        chosen = dict.fromkeys(names, default)
    details = {name: chosen[name] for name in names if name in chosen}
    interventions = decode_interventions(request.interventions, stages, images, violations)
    spec = TraceSpec(list(details), interventions, request.unchanged_logits, request.certify)
    return TracePlan(details, request.top_k_count or DEFAULT_TOP_K, spec)


def _check_detail(path: str, detail: int, violations: list[Violation]) -> None:
    if detail not in pb.Detail.values():
        names = ", ".join(pb.Detail.keys())
        violations.append(Violation(path, f"expected one of {names}, got {detail}"))


def response_bytes(plan: TracePlan, stages: Sequence[Stage], images: int) -> int:
    """Return an upper limit of the bytes of the response, from shapes alone."""
    logits = images * stages[-1].size * 4
    total = 2 * STAGE_OVERHEAD_BYTES + logits  # the logits and the rest
    if plan.spec.unchanged_logits:
        total += STAGE_OVERHEAD_BYTES + logits
    if plan.spec.certify:
        total += certificate_bytes(images)
    for stage in stages:
        detail = plan.details.get(stage.name)
        if detail is None:
            continue
        total += STAGE_OVERHEAD_BYTES
        if detail == pb.DETAIL_FULL:
            total += images * stage.size * 4
        elif detail == pb.DETAIL_TOP_K:
            index_bytes = (stage.size.bit_length() + 6) // 7  # a varint holds 7 bits a byte
            entry = min(plan.top_k, stage.size) * (4 + index_bytes) + ENTRY_OVERHEAD_BYTES
            total += images * entry
        elif detail == pb.DETAIL_UNITS:
            total += unit_bytes(stage)
    return total


def largest_detail(plan: TracePlan) -> str:
    """Return the name of the largest detail that a stage has in the response."""
    found = "statistics"
    for detail, name in DETAILS.items():
        if detail in plan.details.values():
            found = name
    return found


def put_stage(
    stage: Stage, plan: TracePlan, run: TracedRun, rows: slice, into: pb.TracedStage
) -> None:
    """Encode what the plan selects of a run's rows into an empty message."""
    detail = plan.details[stage.name]
    values = run.values(stage.name)[rows]
    into.name, into.operation = stage.name, stage.operation
    into.shape.extend(values.shape)
    into.changed = any(one.stage == stage.name for one in plan.spec.interventions)
    put_statistics(run.statistics.of(stage.name, rows), into.statistics)
    if detail == pb.DETAIL_FULL:
        encode_into(into.values, values)
    elif detail == pb.DETAIL_TOP_K:
        into.top_values.extend(top_values(values, plan.top_k))
    elif detail == pb.DETAIL_UNITS:
        put_units(values, into.units)


def top_values(values: np.ndarray, count: int) -> list[pb.TopK]:
    """Return the `count` largest values of each image with their positions, largest first."""
    return [
        pb.TopK(indices=indices.tolist(), values=row.tolist())
        for indices, row in zip(*largest(values, count), strict=True)
    ]
