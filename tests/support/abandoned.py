"""Every RPC and every way that a client can end a call, with requests of hundreds of kilobytes."""

import contextlib
import random
import socket
import struct
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import grpc
from google.protobuf.message import Message
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest

from forward.v1 import forward_pb2 as pb
from inference import open_inference_pb2 as oip
from tests.support.faults import ALONE, RawClient, grpc_port
from tests.support.servers import RunningServer

IMAGES = 512
REQUEST_BYTES = IMAGES * 28 * 28
LONGEST_WAIT_SECONDS = 0.004  # in which a request is on its way, waits, runs or is answered
UNKNOWN_FIELD = 1000
FORWARD, TRITON = "/forward.v1.ForwardService/", "/inference.GRPCInferenceService/"
GrpcCall: TypeAlias = Any  # of the stubs' kinds, each of which has another type
HEALTH, REFLECTION = "/grpc.health.v1.Health/", "/grpc.reflection.{}.ServerReflection/"


@dataclass(frozen=True)
class Rpc:
    """An RPC, a request that it answers, and one that it refuses, or answers with an error."""

    path: str
    good: bytes
    wrong: bytes
    kind: str

    def begin(
        self, channel: grpc.Channel, request: bytes, seconds: float | None = None
    ) -> GrpcCall:
        """Begin a call of one request, or of three where it takes a stream of them."""
        call: GrpcCall = getattr(channel, self.kind)(self.path)
        if self.kind == "unary_unary":
            return call.future(request, timeout=seconds)
        requests = iter([request] * 3) if self.kind == "stream_stream" else request
        return call(requests, timeout=seconds)


def rpc(path: str, good: Message, wrong: Message | None = None, kind: str = "unary_unary") -> Rpc:
    return Rpc(path, large(good), large(good if wrong is None else wrong), kind)


def large(message: Message) -> bytes:
    """Return a message's bytes; one that is small gets a large field that nobody knows."""
    sent = message.SerializeToString()
    if len(sent) >= REQUEST_BYTES:
        return sent
    return sent + varint(UNKNOWN_FIELD << 3 | 2) + varint(REQUEST_BYTES) + bytes(REQUEST_BYTES)


def varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*out, value))


def tensor(width: int) -> pb.Tensor:
    return pb.Tensor(dtype=pb.DATA_TYPE_UINT8, shape=[IMAGES, 28, width], data=bytes(REQUEST_BYTES))


def infer(width: int) -> oip.ModelInferRequest:
    images = oip.ModelInferRequest.InferInputTensor(
        name="images", datatype="UINT8", shape=[IMAGES, 28, width]
    )
    return oip.ModelInferRequest(
        model_name="mnist", inputs=[images], raw_input_contents=[bytes(REQUEST_BYTES)]
    )


RPCS = [
    rpc(
        f"{FORWARD}Predict",
        pb.PredictRequest(images=tensor(28)),
        pb.PredictRequest(images=tensor(27)),
    ),
    rpc(
        f"{FORWARD}PredictStream",
        pb.PredictStreamRequest(images=tensor(28)),
        pb.PredictStreamRequest(images=tensor(27)),
        "stream_stream",
    ),
    rpc(f"{FORWARD}Trace", pb.TraceRequest(images=tensor(28)), pb.TraceRequest(images=tensor(27))),
    rpc(
        f"{FORWARD}Attribute",
        pb.AttributeRequest(images=tensor(28)),
        pb.AttributeRequest(images=tensor(27)),
    ),
    rpc(
        f"{FORWARD}Compare",
        pb.CompareRequest(images=tensor(28), runtimes=["onnx"]),
        pb.CompareRequest(images=tensor(27)),
    ),
    rpc(
        f"{FORWARD}GetTrainingHistory",
        pb.GetTrainingHistoryRequest(),
        pb.GetTrainingHistoryRequest(model=pb.ModelSelector(name="x")),
    ),
    rpc(
        f"{FORWARD}GetParameters",
        pb.GetParametersRequest(),
        pb.GetParametersRequest(stages=["x"]),
    ),
    rpc(
        f"{FORWARD}GetModel",
        pb.GetModelRequest(),
        pb.GetModelRequest(model=pb.ModelSelector(name="x")),
    ),
    rpc(f"{TRITON}ServerLive", oip.ServerLiveRequest()),
    rpc(f"{TRITON}ServerReady", oip.ServerReadyRequest()),
    rpc(
        f"{TRITON}ModelReady",
        oip.ModelReadyRequest(name="mnist"),
        oip.ModelReadyRequest(name="mnist", version="x"),
    ),
    rpc(f"{TRITON}ServerMetadata", oip.ServerMetadataRequest()),
    rpc(
        f"{TRITON}ModelMetadata",
        oip.ModelMetadataRequest(name="mnist"),
        oip.ModelMetadataRequest(name="x"),
    ),
    rpc(
        f"{TRITON}ModelConfig",
        oip.ModelConfigRequest(name="mnist"),
        oip.ModelConfigRequest(name="x"),
    ),
    rpc(f"{TRITON}ModelInfer", infer(28), infer(27)),
    rpc(
        f"{TRITON}ModelStatistics",
        oip.ModelStatisticsRequest(),
        oip.ModelStatisticsRequest(name="x"),
    ),
    rpc(
        f"{TRITON}RepositoryIndex",
        oip.RepositoryIndexRequest(),
        oip.RepositoryIndexRequest(repository_name="x"),
    ),
    rpc(f"{HEALTH}Check", HealthCheckRequest(), HealthCheckRequest(service="x")),
    rpc(
        f"{HEALTH}Watch", HealthCheckRequest(), HealthCheckRequest(service="x"), kind="unary_stream"
    ),
    *(
        rpc(
            f"{REFLECTION.format(version)}ServerReflectionInfo",
            ServerReflectionRequest(list_services=""),
            ServerReflectionRequest(file_by_filename="x"),
            "stream_stream",
        )
        for version in ("v1", "v1alpha")
    ),
]


def connect(server: RunningServer) -> grpc.Channel:
    return grpc.insecure_channel(server.address, ALONE)


def finish(call: GrpcCall, each: Rpc) -> None:
    """Read a call to its end; a watch, which has none, to its first answer."""
    with contextlib.suppress(grpc.RpcError):
        if each.kind == "unary_unary":
            call.result()
            return
        for _ in call:
            if each.kind == "unary_stream":
                call.cancel()


def reach(call: GrpcCall, each: Rpc) -> None:
    """Come to a moment in which a call is at work: a stream to its first answer."""
    if each.kind == "unary_unary":
        time.sleep(random.random() * LONGEST_WAIT_SECONDS)  # noqa: S311 (no secret)
        return
    with contextlib.suppress(grpc.RpcError):
        next(call)


def answered(server: RunningServer, each: Rpc, calls: int) -> None:
    with connect(server) as channel:
        for _ in range(calls):
            finish(each.begin(channel, each.good), each)


def refused(server: RunningServer, each: Rpc, calls: int) -> None:
    with connect(server) as channel:
        for _ in range(calls):
            finish(each.begin(channel, each.wrong), each)


def malformed(server: RunningServer, each: Rpc, calls: int) -> None:
    with connect(server) as channel:
        for _ in range(calls):
            finish(each.begin(channel, b"\xff" * REQUEST_BYTES), each)


def late(server: RunningServer, each: Rpc, calls: int) -> None:
    with connect(server) as channel:
        for _ in range(calls):
            seconds = 0.001 + random.random() * LONGEST_WAIT_SECONDS  # noqa: S311 (no secret)
            finish(each.begin(channel, each.good, seconds), each)


def cancelled(server: RunningServer, each: Rpc, calls: int) -> None:
    with connect(server) as channel:
        for _ in range(calls):
            call = each.begin(channel, each.good)
            reach(call, each)
            call.cancel()


def closed(server: RunningServer, each: Rpc, calls: int) -> None:
    for _ in range(calls):
        with connect(server) as channel:
            reach(each.begin(channel, each.good), each)


def cut_in_a_message(server: RunningServer, each: Rpc, calls: int) -> None:
    for _ in range(calls):
        _cut(server, each.path, message(each.good)[: REQUEST_BYTES // 2])


def cut_after_a_message(server: RunningServer, each: Rpc, calls: int) -> None:
    for _ in range(calls):
        _cut(server, each.path, message(each.good))


def message(request: bytes) -> bytes:
    """Return a request as it travels: its flag and length before it."""
    return b"\0" + struct.pack(">I", len(request)) + request


def _cut(server: RunningServer, path: str, body: bytes) -> None:
    """Send the beginning of a call, and then reset the connection."""
    with RawClient(grpc_port(server)) as client:
        stream = client.open_call(path)
        while body:
            room = min(
                client.http.local_flow_control_window(stream), client.http.max_outbound_frame_size
            )
            if room:
                client.http.send_data(stream, body[:room])
                body = body[room:]
            client.flush()
            if not room:
                client.http.receive_data(client.socket.recv(65536))
                client.flush()
        linger = struct.pack("ii", 1, 0)  # none: what was not sent is dropped, with a reset
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)


WAYS: Mapping[str, Callable[[RunningServer, Rpc, int], None]] = {
    way.__name__: way
    for way in (
        answered,
        refused,
        malformed,
        late,
        cancelled,
        closed,
        cut_in_a_message,
        cut_after_a_message,
    )
}
