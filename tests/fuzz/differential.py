"""The same messages to a server of each transport of gRPC: both answer the same, to the byte."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any

import grpc
from google.protobuf.message import Message

from forward.v1 import forward_pb2 as pb
from tests.fuzz.mutations import Mutator
from tests.fuzz.run import (
    CALLERS,
    FORWARD,
    INFERENCE,
    TIMEOUT_SECONDS,
    Findings,
    grpc_name,
    messages,
    seeds,
)
from tests.support.servers import RunningServer, scrape

STREAM_INPUTS = 10
GZIP_SHARE = 0.1
VALID_SHARE = (
    0.3  # of the calls: a mutated message is seldom one for the lane, a stream of them never
)
LANE_CALLS = "forward_lane_calls_total"
REQUEST_ID = "x-request-id"
METADATA = ((REQUEST_ID, "of-both"),)
# Where responses have times: their type, and the names of these fields.
TIMES: Mapping[str, tuple[type[Message], Sequence[str]]] = {
    "Trace": (pb.TraceResponse, ("queue_seconds", "run_seconds")),
    "Attribute": (pb.AttributeResponse, ("queue_seconds", "run_seconds")),
    "GetModel": (pb.GetModelResponse, ("reload",)),
}


@dataclass(frozen=True)
class Outcome:
    """What a client gets of one call: its responses, status, text and trailing metadata."""

    responses: Sequence[bytes]
    status: str
    text: str | None
    trailing: Sequence[tuple[str, str | bytes]]


@dataclass(frozen=True)
class Comparison:
    """What came of the messages, and how many calls the lane answered, by method."""

    findings: Findings
    lane: Counter[str]


async def compare(
    servers: Sequence[RunningServer], number: int, inputs: int, methods: Iterable[str] = ()
) -> Comparison:
    """Send so many messages, spread over the methods, to both servers; the second is native."""
    findings = Findings()
    before = await asyncio.to_thread(lane_calls, servers[1])
    async with (
        grpc.aio.insecure_channel(servers[0].address) as one,
        grpc.aio.insecure_channel(servers[1].address) as other,
    ):
        chosen = tuple(methods) or tuple(seeds())
        for index, method in enumerate(chosen):
            mutator = Mutator(number + index, seeds()[method])
            shares = [mutator.next() for _ in range(inputs // len(chosen))]
            await _compare_method((one, other), method, shares, findings, Random(number))  # noqa: S311 (no secret)
    now = await asyncio.to_thread(lane_calls, servers[1])
    now.subtract(before)
    return Comparison(findings, now)


def lane_calls(server: RunningServer) -> Counter[str]:
    """Return how many calls the lane of a server has answered, by the name of the method."""
    return Counter(
        {
            dict(labels)["grpc_method"]: int(value)
            for (name, labels), value in scrape(server).items()
            if name == LANE_CALLS
        }
    )


async def _compare_method(
    channels: Sequence[grpc.aio.Channel],
    method: str,
    inputs: Sequence[bytes],
    findings: Findings,
    random: Random,
) -> None:
    valid = seeds()[method]
    path = f"/{INFERENCE if method == 'ModelInfer' else FORWARD}/{method}"
    is_stream = method == "PredictStream"
    size = STREAM_INPUTS if is_stream else 1
    ask = partial(_ask_stream if is_stream else _ask, path=path)
    left = iter([inputs[start : start + size] for start in range(0, len(inputs), size)])

    async def caller() -> None:
        for sent in left:
            gzip = grpc.Compression.Gzip if random.random() < GZIP_SHARE else None
            if random.random() < VALID_SHARE:
                sent = [random.choice(valid)] * len(sent)  # noqa: PLW2901 (in its place)
            found = await asyncio.gather(*(ask(channel, sent, gzip) for channel in channels))
            _note(findings, method, sent, *found)

    async with asyncio.TaskGroup() as group:
        for _ in range(1 if method == "Compare" else CALLERS):  # one runs at a time
            group.create_task(caller())


async def _ask(
    channel: grpc.aio.Channel, sent: Sequence[bytes], gzip: grpc.Compression | None, path: str
) -> Outcome:
    open_call: Any = channel.unary_unary(path)
    call = open_call(sent[0], timeout=TIMEOUT_SECONDS, metadata=METADATA, compression=gzip)
    try:
        responses = [await call]
    except grpc.aio.AioRpcError:
        responses = []
    return await _outcome(call, responses)


async def _ask_stream(
    channel: grpc.aio.Channel, sent: Sequence[bytes], gzip: grpc.Compression | None, path: str
) -> Outcome:
    open_call: Any = channel.stream_stream(path)
    sending = messages(sent)
    call = open_call(sending, timeout=TIMEOUT_SECONDS, metadata=METADATA, compression=gzip)
    responses = []
    try:
        async for response in call:
            responses.append(response)  # noqa: PERF401 (what came before an error counts)
    except grpc.aio.AioRpcError:
        pass
    return await _outcome(call, responses)


async def _outcome(call: Any, responses: Sequence[bytes]) -> Outcome:  # noqa: ANN401 (either call)
    code, trailing = await call.code(), await call.trailing_metadata()
    # grpcio's core, which refuses some calls by itself, returns no id.
    metadata = sorted((key, value) for key, value in trailing or () if key != REQUEST_ID)
    return Outcome(responses, code.name, await call.details(), metadata)


def _note(
    findings: Findings, method: str, sent: Sequence[bytes], one: Outcome, other: Outcome
) -> None:
    """Count the messages by the status of their answer; keep those whose answers differ."""
    if method == "PredictStream":
        for data, answer in zip(sent, one.responses, strict=False):
            error = pb.PredictStreamResponse.FromString(answer).error
            findings.note(method, grpc_name(error.code), data, None)
        if len(one.responses) != len(sent):
            findings.wrong.append(f"{method}: {len(one.responses)} of {len(sent)}: {one.status}")
    else:
        findings.note(method, one.status, sent[0], None)
    if difference := _difference(method, one, other):
        data = b"".join(sent) if method == "PredictStream" else sent[0]
        findings.wrong.append(f"{method}: {difference}: {data[:200].hex()} ({len(data)} bytes)")


def _difference(method: str, one: Outcome, other: Outcome) -> str:
    if (one.status, one.text, one.trailing) != (other.status, other.text, other.trailing):
        return (
            f"python {one.status} {one.text!r} {one.trailing}, "
            f"native {other.status} {other.text!r} {other.trailing}"
        )
    timeless: Callable[[bytes], bytes] = partial(_without_times, method)
    if [*map(timeless, one.responses)] != [*map(timeless, other.responses)]:
        lengths = [[len(response) for response in each.responses] for each in (one, other)]
        return f"responses of {lengths[0]} and {lengths[1]} bytes are not the same"
    return ""


def _without_times(method: str, response: bytes) -> bytes:
    if method not in TIMES:
        return response
    kind, names = TIMES[method]
    message = kind.FromString(response)
    for name in names:
        message.ClearField(name)
    return message.SerializeToString(deterministic=True)
