"""Throw inputs at a server and judge every answer."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np

from forward.v1 import forward_pb2 as pb
from forward_client.arrays import array_of
from forward_client.messages import tensor_of
from inference import open_inference_pb2 as oip
from tests.fuzz.judgement import PredictJudge
from tests.fuzz.mutations import Mutator

FORWARD = "forward.v1.ForwardService"
INFERENCE = "inference.GRPCInferenceService"
TIMEOUT_SECONDS = 200  # a comparison may import torch
CALLERS = 16
STREAM_INPUTS = 50
# What a caller who sends anything at all may get; never INTERNAL or UNKNOWN.
DUE = {"OK", "INVALID_ARGUMENT", "NOT_FOUND"}


@dataclass
class Findings:
    """What came, and what should not have."""

    statuses: Counter[tuple[str, str]] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    @property
    def inputs(self) -> int:
        """How many inputs were tried."""
        return self.statuses.total()

    def add(self, others: "Findings") -> None:
        """Take in what others found."""
        self.statuses.update(others.statuses)
        self.wrong += others.wrong

    def note(self, method: str, status: str, data: bytes, fault: str | None) -> None:
        """Count an answer; keep the input if it was not what it must be."""
        self.statuses[method, status] += 1
        if fault is not None:
            self.wrong.append(f"{method}: {fault}: {data[:200].hex()} ({len(data)} bytes)")


def seeds() -> dict[str, Sequence[bytes]]:
    """Return valid messages of each method."""
    rng = np.random.default_rng(0)
    few, many = rng.integers(0, 256, (2, 28, 28), np.uint8), np.zeros((32, 28, 28), np.uint8)
    images = [few[0], few, few[0] / np.float32(255), np.empty((0, 28, 28), np.uint8), many]
    tensors = [tensor_of(each) for each in images]
    model = pb.ModelSelector(name="mnist", version=1)
    predict = [pb.PredictRequest(images=tensor) for tensor in tensors]
    predict.append(pb.PredictRequest(images=tensors[0], model=model))
    trace = [pb.TraceRequest(images=tensor) for tensor in tensors[:3]]
    relu = pb.StageSelection(name="relu", detail=pb.DETAIL_FULL)
    top = pb.StageSelection(name="linear1", detail=pb.DETAIL_TOP_K)
    trace.append(pb.TraceRequest(images=tensors[0], stages=[relu, top], top_k_count=3, model=model))
    attribute = [pb.AttributeRequest(images=tensor) for tensor in tensors[:3]]
    attribute[1].MergeFrom(pb.AttributeRequest(target_class=3, other_class=5, stage="relu"))
    attribute[2].MergeFrom(pb.AttributeRequest(baseline=tensors[0], model=model))
    attribute[2].method = pb.ATTRIBUTION_METHOD_INTEGRATED_GRADIENTS
    units = pb.StageSelection(name="relu", detail=pb.DETAIL_UNITS)
    trace.append(pb.TraceRequest(images=tensors[0], stages=[units], certify=True))
    # Without torch's runtimes, which take long; a mutation may ask for them.
    compared = [pb.CompareRequest(images=tensor, runtimes=["onnx"]) for tensor in tensors[:3]]
    compared.append(pb.CompareRequest(images=tensors[0], runtimes=["numpy", "onnx"], model=model))
    histories = [pb.GetTrainingHistoryRequest(), pb.GetTrainingHistoryRequest(model=model)]
    parameters = [pb.GetParametersRequest(), pb.GetParametersRequest(epoch=0, model=model)]
    parameters.append(pb.GetParametersRequest(stages=["linear2", "linear1"], epoch=200))
    described = [pb.GetModelRequest(), pb.GetModelRequest(model=model)]
    return {
        "Predict": [each.SerializeToString() for each in predict],
        "PredictStream": [each.SerializeToString() for each in predict],
        "Trace": [each.SerializeToString() for each in trace],
        "Attribute": [each.SerializeToString() for each in attribute],
        "Compare": [each.SerializeToString() for each in compared],
        "GetTrainingHistory": [each.SerializeToString() for each in histories],
        "GetParameters": [each.SerializeToString() for each in parameters],
        "GetModel": [each.SerializeToString() for each in described],
        "ModelInfer": [each.SerializeToString() for each in _inferences(few)],
    }


def _inferences(images: np.ndarray) -> list[oip.ModelInferRequest]:
    """Return requests with raw and typed contents, of logits, stages and classes."""
    raw, typed, floats = (oip.ModelInferRequest(model_name="mnist", id="a") for _ in range(3))
    for request, datatype in ((raw, "UINT8"), (typed, "UINT8"), (floats, "FP32")):
        request.inputs.add(name="images", datatype=datatype, shape=images.shape)
    raw.raw_input_contents.append(images.tobytes())
    raw.outputs.add(name="relu")
    typed.inputs[0].contents.uint_contents.extend(images.ravel().tolist())
    typed.outputs.add(name="logits").parameters["classification"].int64_param = 3
    floats.raw_input_contents.append((images / np.float32(255)).tobytes())
    return [raw, typed, floats]


async def fuzz(address: str, number: int, inputs: int, judge: PredictJudge) -> Findings:
    """Send so many inputs, spread over the methods, several at a time."""
    findings = Findings()
    async with grpc.aio.insecure_channel(address) as channel:
        for index, (method, valid) in enumerate(seeds().items()):
            mutator = Mutator(number + index, valid)
            share = [mutator.next() for _ in range(inputs // len(seeds()))]
            if method == "PredictStream":
                await _streams(channel, share, judge, findings)
            else:
                await _calls(channel, method, share, judge, findings)
    return findings


async def _calls(
    channel: grpc.aio.Channel,
    method: str,
    inputs: Sequence[bytes],
    judge: PredictJudge,
    findings: Findings,
) -> None:
    service = INFERENCE if method == "ModelInfer" else FORWARD
    call: Any = channel.unary_unary(f"/{service}/{method}")
    left = iter(inputs)

    async def caller() -> None:
        for data in left:
            status, answer = await _outcome(call, data)
            fault = None if status in DUE else status
            if method == "Predict":
                logits = None if answer is None else pb.PredictResponse.FromString(answer).logits
                fault = _fault(judge, data, status, logits)
            findings.note(method, status, data, fault)

    async with asyncio.TaskGroup() as group:
        for _ in range(1 if method == "Compare" else CALLERS):  # one runs at a time
            group.create_task(caller())


async def _outcome(call: Callable[..., Awaitable[bytes]], data: bytes) -> tuple[str, bytes | None]:
    try:
        return "OK", await call(data, timeout=TIMEOUT_SECONDS)
    except grpc.aio.AioRpcError as error:
        return error.code().name, None


async def _streams(
    channel: grpc.aio.Channel, inputs: Sequence[bytes], judge: PredictJudge, findings: Findings
) -> None:
    open_stream: Any = channel.stream_stream(f"/{FORWARD}/PredictStream")
    for start in range(0, len(inputs), STREAM_INPUTS):
        sent = inputs[start : start + STREAM_INPUTS]
        stream = open_stream(messages(sent), timeout=TIMEOUT_SECONDS)
        answers = []
        with suppress(grpc.aio.AioRpcError):  # then answers are missing
            answers = [pb.PredictStreamResponse.FromString(answer) async for answer in stream]
        if len(answers) != len(sent):
            status = (await stream.code()).name
            findings.wrong.append(f"PredictStream: {len(answers)} of {len(sent)}: {status}")
        for data, answer in zip(sent, answers, strict=False):
            status = grpc_name(answer.error.code) if answer.HasField("error") else "OK"
            logits = answer.logits if status == "OK" else None
            findings.note("PredictStream", status, data, _fault(judge, data, status, logits))


async def messages(sent: Sequence[bytes]) -> AsyncIterator[bytes]:
    """Yield what a stream sends."""
    for data in sent:
        yield data


def grpc_name(code: int) -> str:
    """Return the name of a status by its number."""
    return next(each.name for each in grpc.StatusCode if each.value[0] == code)


def _fault(judge: PredictJudge, data: bytes, status: str, logits: pb.Tensor | None) -> str | None:
    due = judge.judge(data)
    if status != due.status:
        return f"expected {due.status}, got {status}"
    if due.logits is not None and (
        logits is None or not np.array_equal(array_of(logits), due.logits)
    ):
        return "the logits are not those of the images"
    return None
