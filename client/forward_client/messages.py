"""Requests as messages, from the arguments of a call."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import numpy as np

from forward.v1 import forward_pb2 as pb
from forward_client.interventions import Intervention, whole_number

Detail = Literal["statistics", "full", "top_k", "units"]
Method = Literal["linear_region", "integrated_gradients", "saliency"]

DETAILS: dict[Detail, pb.Detail] = {
    "statistics": pb.DETAIL_STATISTICS,
    "full": pb.DETAIL_FULL,
    "top_k": pb.DETAIL_TOP_K,
    "units": pb.DETAIL_UNITS,
}
METHODS: dict[Method, pb.AttributionMethod] = {
    "linear_region": pb.ATTRIBUTION_METHOD_LINEAR_REGION,
    "integrated_gradients": pb.ATTRIBUTION_METHOD_INTEGRATED_GRADIENTS,
    "saliency": pb.ATTRIBUTION_METHOD_SALIENCY,
}
MAX_INT32 = 2**31 - 1  # of a field of the contract


def trace_request(  # noqa: PLR0913 (the fields of the request)
    images: np.ndarray,
    stages: Sequence[str] | Mapping[str, Detail],
    *,
    detail: Detail,
    top_k: int,
    interventions: Iterable[Intervention],
    unchanged_logits: bool,
    certify: bool,
) -> pb.TraceRequest:
    """Return the request of `ForwardClient.trace`; it raises what that documents."""
    _check_sequence("stages", stages, "relu")
    own = stages if isinstance(stages, Mapping) else dict.fromkeys(stages, detail)
    for each in (detail, *own.values()):
        _check_choice("a detail", each, DETAILS)
    if isinstance(interventions, Intervention):
        raise TypeError(
            f"expected a sequence of interventions, got one: {interventions}; write [it]"
        )
    return pb.TraceRequest(
        images=tensor_of(images),
        stages=[pb.StageSelection(name=name, detail=DETAILS[own[name]]) for name in own],
        detail=DETAILS[detail],
        top_k_count=top_k,
        interventions=[_message_of(each) for each in interventions],
        unchanged_logits=unchanged_logits,
        certify=certify,
    )


def attribute_request(  # noqa: PLR0913 (the fields of the request)
    images: np.ndarray,
    *,
    method: Method,
    target: int | None,
    other: int | None,
    stage: str | None,
    baseline: np.ndarray | None,
) -> pb.AttributeRequest:
    """Return the request of `ForwardClient.attribute`; it raises what that documents."""
    _check_choice("a method", method, METHODS)
    return pb.AttributeRequest(
        images=tensor_of(images),
        method=METHODS[method],
        target_class=_number_of("a class as", "target", target),
        other_class=_number_of("a class as", "other", other),
        stage=stage or "",
        baseline=None if baseline is None else tensor_of(baseline),
    )


def compare_request(images: np.ndarray, runtimes: Sequence[str]) -> pb.CompareRequest:
    """Return the request of `ForwardClient.compare`; it raises what that documents."""
    _check_sequence("runtimes", runtimes, "onnx")
    return pb.CompareRequest(images=tensor_of(images), runtimes=runtimes)


def parameters_request(epoch: int | None, stages: Sequence[str]) -> pb.GetParametersRequest:
    """Return the request of `ForwardClient.parameters`; it raises what that documents."""
    _check_sequence("stages", stages, "linear1")
    return pb.GetParametersRequest(epoch=_number_of("a number as", "epoch", epoch), stages=stages)


def tensor_of(images: np.ndarray) -> pb.Tensor:
    """Return images as a tensor: uint8 as they are, floating as FLOAT32."""
    array = np.asarray(images)
    if array.dtype == np.uint8:
        dtype = pb.DATA_TYPE_UINT8
    elif np.issubdtype(array.dtype, np.floating):
        array, dtype = array.astype("<f4", copy=False), pb.DATA_TYPE_FLOAT32
    else:
        raise TypeError(f"expected uint8 (0..255) or floating (0..1) images, got {array.dtype}")
    return pb.Tensor(dtype=dtype, shape=array.shape, data=array.tobytes())


def _message_of(intervention: Intervention) -> pb.Intervention:
    if not isinstance(intervention, Intervention):
        raise TypeError(
            f"expected interventions, got {intervention!r}; of a text make one by "
            "Intervention.parse"
        )
    return intervention.message()


def _check_sequence(name: str, given: object, example: str) -> None:
    if isinstance(given, str):
        shown = given or example
        raise TypeError(f"expected a sequence of {name}, got {given!r}; write [{shown!r}]")


def _check_choice(what: str, given: str, choices: Iterable[str]) -> None:
    known = tuple(choices)
    if given not in known:
        raise ValueError(f"expected {what} of {', '.join(known)}, got {given!r}")


def _number_of(what: str, name: str, given: object) -> int | None:
    """Return a class or an epoch as Python's int, None for none."""
    if given is None:
        return None
    number = whole_number(given)
    if number is None or not 0 <= number <= MAX_INT32:
        raise ValueError(f"expected {what} {name}, from 0 to {MAX_INT32}, got {given!r}")
    return number
