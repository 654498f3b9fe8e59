"""Every call has one record, whatever carries it and however it ends."""

import base64
import http.client
import re
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf import json_format
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from structlog.testing import capture_logs

from export.bundle import Bundle
from forward.v1 import forward_pb2 as pb
from forward.v1.forward_pb2_grpc import ForwardServiceStub
from forward_client import ForwardClient, ForwardError
from forward_client.messages import tensor_of
from server.observability.call_metrics import REJECTIONS, TRACE_DETAILS
from tests.support.bundles import random_images
from tests.support.http import Answer, post, request
from tests.support.servers import (
    HeldServer,
    RunningServer,
    handled,
    metric,
    scrape,
    start_held_server,
    start_server,
    wait_until,
)

FORWARD, INFERENCE = "/forward.v1.ForwardService", "/inference.GRPCInferenceService"
ID = "a-request.of_1"
MADE = re.compile(r"[0-9a-f]{32}")
# Of methods that the native transport's lane leaves to Python.
TRACE = pb.TraceRequest(images=tensor_of(random_images(3, (28, 28))))
OTHER = pb.ModelSelector(name="resnet")
ENDINGS: Mapping[str, tuple[str, Message]] = {
    "OK": ("Trace", TRACE),
    "INVALID_ARGUMENT": ("Trace", pb.TraceRequest()),
    "NOT_FOUND": ("GetModel", pb.GetModelRequest(model=OTHER)),
    "UNIMPLEMENTED": ("Nothing", pb.GetModelRequest()),
}
Ended = tuple[str, str]  # the id that came back, and the status


@pytest.fixture(scope="module")
def logged(transport: str) -> Iterator[RunningServer]:
    """A server that has a line of every call."""
    options = ("--http-port", "0", "--access-log", "1", "--transport", transport)
    with start_server(*options) as server:
        yield server


def lines(server: RunningServer, request_id: str) -> list[dict[str, Any]]:
    """Return the lines of the calls of an id, of which there is at least one."""

    def found() -> list[dict[str, Any]]:
        calls = (line for line in server.log() if line["event"] == "call")
        return [line for line in calls if line["request_id"] == request_id]

    wait_until(lambda: bool(found()))
    return found()


def call(address: str, method: str, message: Message, *sent: str) -> tuple[Ended, Any]:
    """Call a method by gRPC with these ids; return how it ended, and the error if one came."""
    metadata = [("x-request-id", each) for each in sent]
    with grpc.insecure_channel(address) as channel:
        function: Any = channel.unary_unary(f"{FORWARD}/{method}")
        try:
            _, ended = function.with_call(
                message.SerializeToString(), timeout=60, metadata=metadata
            )
        except grpc.RpcError as error:
            ended = error
    (request_id,) = (value for key, value in ended.trailing_metadata() if key == "x-request-id")
    return (request_id, ended.code().name), ended


def id_in(details: Any) -> str:  # noqa: ANN401 (protobuf's container)
    """Return the id of the request in the details of an error."""
    info = error_details_pb2.RequestInfo()
    assert [each.Unpack(info) for each in details].count(True) == 1
    return info.request_id


@pytest.mark.parametrize("status", ENDINGS)
def test_a_call_of_grpc_is_counted_once_with_its_record(logged: RunningServer, status: str) -> None:
    method, message = ENDINGS[status]
    is_there = method != "Nothing"
    labels = ("unary", "forward.v1.ForwardService") if is_there else ("unknown", "unknown")

    def counted() -> float:
        return handled(logged, method if is_there else "unknown", status, *labels)

    before, request_id = counted(), f"{ID}.{status}"
    ended, error = call(logged.address, method, message, request_id)
    assert ended == (request_id, status)
    assert counted() == before + 1
    (line,) = lines(logged, request_id)
    assert line["method"] == (f"{FORWARD}/{method}" if is_there else "unknown")
    assert (line["status"], line["transport"]) == (status, "grpc")
    assert line["level"] == ("warning" if status == "UNIMPLEMENTED" else "info")
    assert line["peer"].startswith("ipv4:127.0.0.1:")
    if status != "OK":
        carried = rpc_status.from_call(error)
        assert carried is not None
        assert id_in(carried.details) == request_id
        assert (line["images"], line["queue_ms"], line["compute_ms"]) == (0, 0, 0)


def test_the_line_of_a_call_has_its_figures(logged: RunningServer) -> None:
    started = time.perf_counter()
    (request_id, _), _ = call(logged.address, "Trace", TRACE, f"{ID}.figures")
    passed_ms = (time.perf_counter() - started) * 1000
    (line,) = lines(logged, request_id)
    assert (line["images"], line["model"], line["version"]) == (3, "mnist", 1)
    assert line["request_bytes"] == TRACE.ByteSize()
    assert line["response_bytes"] > 300
    assert min(line[f"{each}_ms"] for each in ("compute", "encode", "total")) > 0
    parts = sum(line[f"{each}_ms"] for each in ("queue", "compute", "encode"))
    assert parts < line["total_ms"] < passed_ms
    assert line["trace_id"] is None


@pytest.mark.parametrize("sent", [(), ("",), ("x" * 129,), ("a b",), ('"x"',)])
def test_an_id_that_is_none_gives_way_to_a_made_one(
    logged: RunningServer, sent: tuple[str, ...]
) -> None:
    (first, _), _ = call(logged.address, "GetModel", pb.GetModelRequest(), *sent)
    (second, _), _ = call(logged.address, "GetModel", pb.GetModelRequest(), *sent)
    assert MADE.fullmatch(first)
    assert MADE.fullmatch(second)
    assert first != second


def test_an_id_comes_back_where_it_leads_somewhere(served: RunningServer, transport: str) -> None:
    """To the caller, or to the log, which has no line of this call; the extension sends any."""
    with grpc.insecure_channel(served.address) as channel:
        function: Any = channel.unary_unary(f"{FORWARD}/GetModel")
        found = []
        for sent in ((), (("x-request-id", ID),)):
            _, ended = function.with_call(b"", timeout=60, metadata=sent)
            found.append(dict(ended.trailing_metadata()).get("x-request-id"))
    assert found[1] == ID
    assert (found[0] is None) == (transport == "python")


def test_the_trace_of_the_caller_is_on_record(logged: RunningServer) -> None:
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    answer = post(
        logged.http_address,
        "GetModel",
        {},
        x_request_id=f"{ID}.traced",
        traceparent=f"00-{trace_id}-b7ad6b7169203331-01",
    )
    assert answer.status == 200
    (line,) = lines(logged, f"{ID}.traced")
    assert line["trace_id"] == trace_id


HttpCall = Callable[[str, str], Answer]  # to an address, with an id
HTTP_CALLS: Mapping[str, tuple[str, str, HttpCall]] = {
    "Connect": (
        f"{FORWARD}/Trace",
        "OK",
        lambda to, sent: post(to, "Trace", json_format.MessageToDict(TRACE), x_request_id=sent),
    ),
    "Connect, wrong": (
        f"{FORWARD}/Trace",
        "INVALID_ARGUMENT",
        lambda to, sent: post(to, "Trace", {}, x_request_id=sent),
    ),
    "Connect, no JSON": (
        f"{FORWARD}/Trace",
        "INVALID_ARGUMENT",
        lambda to, sent: post(to, "Trace", b"{", x_request_id=sent),
    ),
    "Connect, another type": (
        f"{FORWARD}/Trace",
        "INVALID_ARGUMENT",
        lambda to, sent: post(to, "Trace", {}, x_request_id=sent, content_type="text/plain"),
    ),
    "Connect, too large": (
        f"{FORWARD}/Predict",
        "RESOURCE_EXHAUSTED",
        lambda to, sent: post(to, "Predict", bytes(10**7), x_request_id=sent),
    ),
    "Connect, another model": (
        f"{FORWARD}/GetModel",
        "NOT_FOUND",
        lambda to, sent: post(to, "GetModel", {"model": {"name": "no"}}, x_request_id=sent),
    ),
    "REST": (
        f"{INFERENCE}/ModelInfer",
        "OK",
        lambda to, sent: request(
            to,
            "/v2/models/mnist/infer",
            bytes(784),
            x_request_id=sent,
            content_type="application/octet-stream",
            inference_header_content_length="0",
        ),
    ),
    "REST, wrong": (
        f"{INFERENCE}/ModelInfer",
        "INVALID_ARGUMENT",
        lambda to, sent: request(to, "/v2/models/mnist/infer", b"{}", x_request_id=sent),
    ),
    "REST, read": (
        f"{INFERENCE}/ModelMetadata",
        "OK",
        lambda to, sent: request(to, "/v2/models/mnist", x_request_id=sent),
    ),
    "REST, another model": (
        f"{INFERENCE}/ModelReady",
        "NOT_FOUND",
        lambda to, sent: request(to, "/v2/models/no/ready", x_request_id=sent),
    ),
}


@pytest.mark.one_transport
@pytest.mark.parametrize("name", HTTP_CALLS)
def test_a_call_over_http_has_one_record(logged: RunningServer, name: str) -> None:
    method, status, ask = HTTP_CALLS[name]
    request_id = f"{ID}.{name.replace(' ', '-').replace(',', '')}"
    grpc_calls = sum(v for (n, _), v in scrape(logged).items() if n == "grpc_server_handled_total")
    answer = ask(logged.http_address, request_id)
    assert answer.headers["x-request-id"] == request_id
    assert (answer.status == 200) == (status == "OK")
    (line,) = lines(logged, request_id)
    assert (line["method"], line["status"], line["transport"]) == (method, status, "http")
    assert line["peer"].startswith("127.0.0.1:")
    assert line["response_bytes"] == len(answer.body)
    assert line["images"] == {f"{FORWARD}/Trace": 3}.get(method, 1) * (line["compute_ms"] > 0)
    found = scrape(logged)
    assert grpc_calls == sum(v for (n, _), v in found.items() if n == "grpc_server_handled_total")
    assert found["forward_calls_in_flight", frozenset()] == 0


@pytest.mark.one_transport
def test_every_http_response_has_the_id(logged: RunningServer) -> None:
    for path in ("/", "/nothing", "/livez", "/v2", "/forward.v1.ForwardService/Nothing"):
        assert request(logged.http_address, path, x_request_id=ID).headers["x-request-id"] == ID
        assert MADE.fullmatch(request(logged.http_address, path).headers["x-request-id"])


@pytest.mark.one_transport
def test_an_error_of_connect_has_the_id_among_its_details(logged: RunningServer) -> None:
    details = post(logged.http_address, "Trace", {}, x_request_id=ID).json()["details"]
    (info,) = (each for each in details if each["type"] == "google.rpc.RequestInfo")
    value = error_details_pb2.RequestInfo.FromString(base64.b64decode(info["value"] + "=="))
    assert value.request_id == ID


def held_calls(server: HeldServer, method: str = "") -> list[tuple[str, str]]:
    """Return the calls of a method that have ended: the transport, and the status."""
    return [(each.transport, each.status) for each in server.ended if method in each.method]


def sample(server: HeldServer, name: str, **labels: str) -> float:
    return server.metrics.registry.get_sample_value(name, labels) or 0


def rejected(server: HeldServer) -> dict[str, float]:
    """Return how many calls were rejected, by the reasons of which there were any."""
    counts = {each: sample(server, "forward_rejected_total", reason=each) for each in REJECTIONS}
    return {reason: count for reason, count in counts.items() if count}


def predict(images: int) -> pb.PredictRequest:
    return pb.PredictRequest(images=tensor_of(random_images(images, (28, 28))))


def ask(
    server: HeldServer, carrier: str, method: str, message: Message, seconds: float = 60
) -> None:
    """Call a method of a server, whatever comes of it."""
    if carrier == "http":
        timeout = str(round(seconds * 1000))
        fields = json_format.MessageToDict(message)
        post(server.http_address, method, fields, connect_timeout_ms=timeout)
        return
    with grpc.insecure_channel(server.address) as channel, suppress(grpc.RpcError):
        function: Any = channel.unary_unary(f"{FORWARD}/{method}")
        function(message.SerializeToString(), timeout=seconds)


def have_ended(server: HeldServer, count: int) -> bool:
    return len(server.ended) == count


@pytest.mark.parametrize("carrier", ["grpc", "http"])
def test_each_failure_is_on_record_once(bundle: Bundle, carrier: str) -> None:
    """The runtime fails, the queue is full, a deadline passes in it."""
    with (
        capture_logs() as logged,
        start_held_server(bundle, max_queue_images=4) as server,
        ThreadPoolExecutor(2) as pool,
    ):
        ask(server, carrier, "Trace", predict(1))
        ask(server, carrier, "Predict", predict(5))
        wait_until(lambda: len(server.ended) == 2)
        running = pool.submit(ask, server, carrier, "Predict", predict(1))
        assert server.runner.started.acquire(timeout=10)
        assert sample(server, "forward_calls_in_flight") == 1
        late = pool.submit(ask, server, carrier, "Predict", predict(1), 0.5)
        wait_until(lambda: sample(server, "forward_queue_oldest_seconds", batcher="predict") > 0)
        assert sample(server, "forward_calls_in_flight") == 2
        late.result(30)
        wait_until(lambda: len(server.ended) == 3)
        server.runner.let_go.set()
        running.result(30)
        wait_until(lambda: len(server.ended) == 4)
        statuses = ("INTERNAL", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED", "OK")
        assert held_calls(server) == [(carrier, each) for each in statuses]
        assert rejected(server) == {"queue_full": 1, "deadline_exceeded": 1}
        assert sample(server, "forward_calls_in_flight") == 0
        wait_until(lambda: sample(server, "forward_queue_oldest_seconds", batcher="predict") == 0)
        events = ("call failed", "call")
        wait_until(lambda: sum(line["event"] in events for line in logged) == 3)
        failed = [line for line in logged if line["event"] in events]
        assert [line["request_id"] for line in failed] == [
            server.ended[index].request_id for index in (0, 0, 2)
        ]


@pytest.mark.parametrize("carrier", ["grpc", "http"])
def test_a_caller_that_leaves_is_on_record_once(bundle: Bundle, carrier: str) -> None:
    message = predict(1).SerializeToString()
    with start_held_server(bundle) as server:
        if carrier == "grpc":
            channel = grpc.insecure_channel(server.address)
            function: Any = channel.unary_unary(f"{FORWARD}/Predict")
            calling = function.future(message, timeout=60)
            leave = calling.cancel
        else:
            connection = http.client.HTTPConnection(server.http_address, timeout=60)
            headers = {"content-type": "application/proto"}
            path = f"{FORWARD}/Predict"
            connection.request("POST", path, message, headers)
            leave = connection.close
        assert server.runner.started.acquire(timeout=10)
        leave()
        wait_until(lambda: len(server.ended) == 1)
        server.runner.let_go.set()
        assert held_calls(server) == [(carrier, "CANCELLED")]
        assert rejected(server) == {}
        assert sample(server, "forward_calls_in_flight") == 0


@pytest.mark.parametrize("carrier", ["grpc", "http"])
def test_a_call_that_comes_while_it_drains_is_rejected(bundle: Bundle, carrier: str) -> None:
    with (
        capture_logs(),
        start_held_server(bundle) as server,
        ThreadPoolExecutor(1) as pool,
    ):
        running = pool.submit(ask, server, carrier, "Predict", predict(1))
        assert server.runner.started.acquire(timeout=10)
        draining = server.drain(30)
        for asked in count(1):
            ask(server, carrier, "GetModel", pb.GetModelRequest())
            wait_until(partial(have_ended, server, asked))
            if server.ended[-1].status != "OK":  # the gate closes a moment later
                break
        assert server.ended[-1].status == "UNAVAILABLE"
        assert rejected(server) == {"draining": 1}
        server.runner.let_go.set()
        running.result(30)
        draining.result(30)


WRONG = [pb.PredictStreamRequest(), pb.PredictStreamRequest(model=OTHER)]


@pytest.mark.parametrize("message", WRONG, ids=["images", "model"])
def test_an_error_in_a_stream_has_the_id_of_its_call(
    logged: RunningServer, message: pb.PredictStreamRequest
) -> None:
    good = pb.PredictStreamRequest(images=TRACE.images)
    metadata = (("x-request-id", f"{ID}.stream"),)
    with grpc.insecure_channel(logged.address) as channel:
        stream = ForwardServiceStub(channel).PredictStream(
            iter([good, message]), metadata=metadata, timeout=60
        )
        answered, refused = stream
    assert answered.WhichOneof("result") == "logits"
    assert id_in(refused.error.details) == f"{ID}.stream"
    assert ForwardError.from_status(refused.error).request_id == f"{ID}.stream"


def test_the_client_shows_the_id_of_what_failed(logged: RunningServer) -> None:
    with ForwardClient(logged.address) as client, pytest.raises(ForwardError) as refused:
        client.predict(np.full((28, 28), 255.0, np.float32))
    (line,) = lines(logged, refused.value.request_id)
    assert (line["status"], line["method"]) == ("INVALID_ARGUMENT", f"{FORWARD}/Predict")


@pytest.mark.one_transport
def test_the_access_log_has_the_share_that_was_set() -> None:
    def calls(share: str, number: int) -> int:
        with start_server("--access-log", share) as server:
            for _ in range(number):
                call(server.address, "GetModel", pb.GetModelRequest())
            call(server.address, "Nothing", pb.GetModelRequest(), ID)
            assert lines(server, ID)
            return sum(line["event"] == "call" for line in server.log()) - 1

    assert calls("0", 20) == 0
    assert 20 < calls("0.5", 100) < 80  # chance is further off once in 10^9


@pytest.mark.one_transport
def test_refused_tokens_are_on_record_by_their_method(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("a-token\n")
    tokens.chmod(0o600)
    options = ("--token-file", str(tokens), "--access-log", "1", "--http-port", "0")
    with start_server(*options) as server:
        refused, _ = call(server.address, "GetModel", pb.GetModelRequest(), f"{ID}.known")
        unknown, _ = call(server.address, "Nothing", pb.GetModelRequest(), f"{ID}.unknown")
        over_http = post(server.http_address, "GetModel", {}, x_request_id=f"{ID}.http")
        assert (refused[1], unknown[1], over_http.status) == (*["UNAUTHENTICATED"] * 2, 401)
        methods = [lines(server, f"{ID}.{each}")[0] for each in ("known", "unknown", "http")]
        assert [line["method"] for line in methods] == [
            f"{FORWARD}/GetModel",
            "unknown",
            f"{FORWARD}/GetModel",
        ]
        assert {line["status"] for line in methods} == {"UNAUTHENTICATED"}
        assert metric(server, "forward_rejected_total", reason="unauthenticated") == 3
        assert handled(server, "GetModel", "UNAUTHENTICATED") == 1
        assert handled(server, "unknown", "UNAUTHENTICATED", "unknown", "unknown") == 1


def test_runs_responses_and_details_are_counted(logged: RunningServer) -> None:
    before = scrape(logged)
    answer(logged.address, TRACE)
    full = pb.TraceRequest(images=TRACE.images, detail=pb.DETAIL_FULL)
    top_k = pb.StageSelection(name="relu", detail=pb.DETAIL_TOP_K)
    largest = pb.TraceRequest(images=TRACE.images, stages=[top_k])
    sizes = [len(answer(logged.address, each)) for each in (full, largest)]
    after = scrape(logged)

    def grown(name: str, **labels: str) -> float:
        key = name, frozenset(labels.items())
        return after[key] - before[key]

    responses, size = "forward_trace_responses_total", "forward_trace_response_bytes_total"
    counts = {each: grown(responses, detail=each) for each in TRACE_DETAILS}
    assert counts == {"statistics": 1, "top_k": 1, "units": 0, "full": 1}
    assert [grown(size, detail=each) for each in ("full", "top_k")] == sizes
    assert grown("forward_run_requests_count", batcher="trace") == 3
    assert grown("forward_run_requests_sum", batcher="trace") == 3
    assert grown("forward_encode_seconds_count", batcher="trace") == 3
    assert grown("forward_encode_seconds_sum", batcher="trace") > 0


def answer(address: str, message: pb.TraceRequest) -> bytes:
    with grpc.insecure_channel(address) as channel:
        function: Any = channel.unary_unary(f"{FORWARD}/Trace")
        found: bytes = function(message.SerializeToString(), timeout=60)
        return found
