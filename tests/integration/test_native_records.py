"""What is known of calls that Python did not answer: ids, counts, and lines of the log."""

import base64
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import h2.events
import numpy as np
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from bench.load.h2load import frame
from forward.v1 import forward_pb2 as pb
from forward.v1.forward_pb2_grpc import ForwardServiceStub
from forward_client.messages import tensor_of
from tests.fuzz.run import seeds
from tests.support.bundles import REPOSITORY
from tests.support.faults import ALONE, ONE, RawClient, grpc_port
from tests.support.servers import (
    RunningServer,
    handled,
    metric,
    scrape,
    start_server,
    wait_until,
)

pytest.importorskip("forward_native", reason="the native transport is not installed")
pytestmark = pytest.mark.one_transport

ID = "x-request-id"
ONE_IMAGE = pb.PredictRequest(images=tensor_of(ONE))
FULL = "RESOURCE_EXHAUSTED"
CALL_OK = ("call", "OK")
PREDICT = {"grpc_service": "forward.v1.ForwardService", "grpc_method": "Predict"}
INFER = {"grpc_service": "inference.GRPCInferenceService", "grpc_method": "ModelInfer"}
SIZES = ("--max-batch-images", "8", "--max-queue-images", "8")


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with start_server("--transport", "native", *SIZES) as running:
        yield running


@pytest.fixture
def service(server: RunningServer) -> Iterator[ForwardServiceStub]:
    with grpc.insecure_channel(server.address, ALONE) as channel:
        yield ForwardServiceStub(channel)


def lines(server: RunningServer, request_id: str) -> list[dict[str, Any]]:
    """Return what the log has of a call."""
    return [each for each in server.log() if each.get("request_id") == request_id]


def line_of(server: RunningServer, request_id: str) -> dict[str, Any]:
    """Return the line of a call, which comes a moment after it."""
    wait_until(lambda: bool(lines(server, request_id)))
    (line,) = lines(server, request_id)
    return line


def id_of(trailing: Any) -> str:  # noqa: ANN401 (grpcio's metadata)
    (found,) = (value for key, value in trailing or () if key == ID)
    return str(found)


def predicted(service: ForwardServiceStub, *metadata: tuple[str, str]) -> str:
    """Return the id that comes back from a call in the lane."""
    _, call = service.Predict.with_call(ONE_IMAGE, metadata=metadata, timeout=20)
    return id_of(call.trailing_metadata())


def test_an_id_is_taken_or_made_by_the_same_rule(service: ForwardServiceStub) -> None:
    with (
        # Python's transport returns the ids that it made of those calls that the log has.
        start_server("--transport", "python", "--access-log", "1") as python,
        grpc.insecure_channel(python.address, ALONE) as channel,
    ):
        ways = (service, ForwardServiceStub(channel))
        for given in (["Az09._-"], ["x" * 128], ["a", "b"], ["a", "b c"]):
            metadata = [(ID, value) for value in given]
            first, second = (predicted(way, *metadata) for way in ways)
            assert first == second in given
        for refused in (["x" * 129], ["b c"], ["ä".encode().hex() + "/"], []):
            metadata = [(ID, value) for value in refused]
            for way in ways:
                made = [predicted(way, *metadata) for _ in range(3)]
                assert len(set(made)) == 3
                assert all(len(each) == 32 and int(each, 16) >= 0 for each in made)


@pytest.mark.parametrize("method", ["PredictStream", "ModelInfer"])
def test_every_method_of_the_lane_returns_the_id(server: RunningServer, method: str) -> None:
    with grpc.insecure_channel(server.address, ALONE) as channel:
        call: Any
        if method == "PredictStream":
            messages = iter([pb.PredictStreamRequest(images=tensor_of(ONE))])
            call = ForwardServiceStub(channel).PredictStream(messages, metadata=((ID, "one"),))
            assert len(list(call)) == 1
        else:
            path = f"/inference.GRPCInferenceService/{method}"
            before = metric(server, "forward_lane_calls_total", **INFER)
            ask: Any = channel.unary_unary(path)
            for message in seeds()[method]:
                call = ask.future(message, metadata=[(ID, "one")])
                call.exception()
                assert id_of(call.trailing_metadata()) == "one"
            assert metric(server, "forward_lane_calls_total", **INFER) > before
        assert id_of(call.trailing_metadata()) == "one"


def test_a_refusal_of_the_lane_has_the_id_in_its_details(server: RunningServer) -> None:
    with RawClient(grpc_port(server)) as client:
        for images, metadata in ((4, ()), (5, ((ID, "full"),))):  # half of the queue is kept
            sent = pb.PredictRequest(images=tensor_of(np.zeros((images, 28, 28), np.uint8)))
            stream = client.open_call("Predict", metadata)
            client.http.send_data(stream, frame(sent.SerializeToString())[:100])
        client.flush()
        seen = client.events_until(h2.events.StreamEnded)
    (response,) = (event for event in seen if isinstance(event, h2.events.ResponseReceived))
    headers = {str(key): str(value) for key, value in response.headers or ()}
    details = base64.b64decode(headers["grpc-status-details-bin"] + "==")
    infos = status_pb2.Status.FromString(details).details
    info = error_details_pb2.RequestInfo()
    assert infos[-1].Unpack(info)
    assert info.request_id == "full" == headers[ID]
    assert metric(server, "forward_rejected_total", reason="queue_full") == 1


def ended(server: RunningServer, call: Callable[[RawClient], None], code: str) -> None:
    """Fail unless a call that no service sees is counted with that code, once."""
    before, seconds = handled(server, "Predict", code), handling_count(server)
    with RawClient(grpc_port(server)) as client:
        call(client)
        wait_until(lambda: handled(server, "Predict", code) == before + 1)
    assert handling_count(server) == seconds, "it has no time: no handler had it"


def handling_count(server: RunningServer) -> float:
    labels = {"grpc_service": "forward.v1.ForwardService", "grpc_type": "unary"}
    name = "grpc_server_handling_seconds_count"
    return metric(server, name, grpc_method="Predict", **labels)


def test_calls_that_no_service_sees_are_counted_and_failures_logged(server: RunningServer) -> None:
    message = frame(ONE_IMAGE.SerializeToString())

    def late(client: RawClient) -> None:
        client.open_call("Predict", (("grpc-timeout", "200m"), (ID, "late"), ("traceparent", "x")))
        client.events_until(h2.events.StreamEnded)

    def broken_off(client: RawClient) -> None:
        stream = client.open_call("Predict", ((ID, "broken"),))
        client.http.send_data(stream, message[:100], end_stream=True)
        client.flush()
        client.events_until(h2.events.StreamEnded)

    def empty(client: RawClient) -> None:
        client.http.end_stream(client.open_call("Predict", ((ID, "empty"),)))
        client.flush()
        client.events_until(h2.events.StreamEnded)

    def too_large(client: RawClient) -> None:
        stream = client.open_call("Predict", ((ID, "large"),))
        client.http.send_data(stream, b"\0\xff\xff\xff\xff")
        client.flush()
        client.events_until(h2.events.StreamEnded)

    def cancelled(client: RawClient) -> None:
        stream = client.open_call("Predict", ((ID, "cancelled"),))
        client.http.send_data(stream, message[:100])
        client.http.reset_stream(stream, 8)
        client.flush()

    def lost(client: RawClient) -> None:
        stream = client.open_call("Predict")
        client.http.send_data(stream, message[:100])
        client.flush()
        wait_until(lambda: metric(server, "forward_calls_in_flight") == 1)
        client.socket.shutdown(socket.SHUT_RDWR)

    ended(server, late, "DEADLINE_EXCEEDED")
    ended(server, broken_off, "INTERNAL")
    ended(server, too_large, "RESOURCE_EXHAUSTED")
    ended(server, cancelled, "CANCELLED")
    ended(server, lost, "CANCELLED")
    ended(server, empty, "UNIMPLEMENTED")
    line_of(server, "empty")  # the last: those before it are there
    statuses = {"late": "DEADLINE_EXCEEDED", "broken": "INTERNAL", "empty": "UNIMPLEMENTED"}
    for request_id, status in statuses.items():
        line = line_of(server, request_id)
        assert (line["event"], line["status"]) == ("call", status)
        assert line["method"] == "/forward.v1.ForwardService/Predict"
        assert line["peer"].startswith("ipv4:127.0.0.1:")
        assert line["total_ms"] >= (200 if request_id == "late" else 0)
    assert not lines(server, "large")
    assert not lines(server, "cancelled")
    assert metric(server, "forward_calls_in_flight") == 0
    assert metric(server, "forward_rejected_total", reason="deadline_exceeded") == 1


@pytest.mark.parametrize("way", ["in the lane", "through Python"])
def test_a_stream_counts_with_the_status_that_its_client_got(
    server: RunningServer, way: str
) -> None:
    good = pb.PredictStreamRequest(images=tensor_of(ONE))
    first = good if way == "in the lane" else pb.PredictStreamRequest()

    def ended(code: str) -> float:
        return handled(server, "PredictStream", code, "bidi_stream")

    before = {code: ended(code) for code in (FULL, "CANCELLED")}
    with RawClient(grpc_port(server)) as client:
        stream = client.open_call("PredictStream")
        client.http.send_data(stream, frame(first.SerializeToString()))
        client.flush()
        client.events_until(h2.events.DataReceived)
        client.http.send_data(stream, b"\0\xff\xff\xff\xff")
        client.flush()
        seen = client.events_until(h2.events.StreamEnded)
    (trailers,) = (event for event in seen if isinstance(event, h2.events.TrailersReceived))
    assert {str(key): str(value) for key, value in trailers.headers or ()}["grpc-status"] == "8"
    wait_until(lambda: ended(FULL) == before[FULL] + 1)
    assert ended("CANCELLED") == before["CANCELLED"]


def test_an_unknown_method_is_counted_as_unknown(server: RunningServer) -> None:
    with grpc.insecure_channel(server.address, ALONE) as channel:
        ask: Any = channel.unary_unary("/no.Service/Nothing")
        with pytest.raises(grpc.RpcError) as raised:
            ask(b"", metadata=[(ID, "unknown")], timeout=20)
        assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED
        assert id_of(raised.value.trailing_metadata()) == "unknown"
    labels = dict.fromkeys(("grpc_service", "grpc_method", "grpc_type"), "unknown")
    name, code = "grpc_server_handled_total", "UNIMPLEMENTED"
    assert metric(server, name, grpc_code=code, **labels) == 1
    line = line_of(server, "unknown")
    assert (line["status"], line["method"]) == (code, "unknown")


def test_the_lane_counts_requests_of_runs_and_encoding(
    server: RunningServer, service: ForwardServiceStub
) -> None:
    before = scrape(server)
    for _ in range(5):
        service.Predict(ONE_IMAGE, timeout=20)
    after = scrape(server)

    def grown(name: str) -> float:
        key = name, frozenset({("batcher", "predict")})
        return after[key] - before[key]

    assert grown("forward_run_requests_sum") == 5
    assert grown("forward_run_requests_count") == grown("forward_run_images_count") == 5
    assert grown("forward_encode_seconds_count") == 5
    assert 0 < grown("forward_encode_seconds_sum") < 1
    assert after["forward_queue_oldest_seconds", frozenset({("batcher", "predict")})] == 0


def test_a_stream_of_the_lane_that_a_drain_ends_has_the_id_and_a_line() -> None:
    with start_server("--transport", "native") as server:
        with grpc.insecure_channel(server.address, ALONE) as channel:
            ending = threading.Event()

            def messages() -> Iterator[pb.PredictStreamRequest]:
                yield pb.PredictStreamRequest(images=tensor_of(ONE))
                ending.wait(30)

            call = ForwardServiceStub(channel).PredictStream(messages(), metadata=((ID, "stream"),))
            next(iter(call))
            server.process.terminate()
            with pytest.raises(grpc.RpcError) as raised:
                next(iter(call))
            ending.set()
            error: Any = raised.value
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            info = error_details_pb2.RequestInfo()
            assert rpc_status.from_call(error).details[-1].Unpack(info)
            assert info.request_id == "stream" == id_of(error.trailing_metadata())
        server.process.wait(30)
        (line,) = lines(server, "stream")
        assert (line["status"], line["images"]) == ("UNAVAILABLE", 1)
        assert line["method"] == "/forward.v1.ForwardService/PredictStream"


def entries(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines(keepends=True)]


def lane_lines(server: RunningServer) -> list[dict[str, Any]]:
    return [each for each in server.log() if (each["event"], each.get("status")) == CALL_OK]


def has_lines(server: RunningServer, count: float) -> bool:
    return len(lane_lines(server)) == count


def test_the_log_has_the_share_of_the_calls_in_the_lane_that_was_set() -> None:
    for share, most, least in (("0.5", 260, 140), ("1", 400, 400)):
        with start_server("--transport", "native", "--access-log", share) as server:
            with grpc.insecure_channel(server.address, ALONE) as channel:
                predict = ForwardServiceStub(channel).Predict
                for _ in range(400):
                    predict(ONE_IMAGE, timeout=20)
            assert metric(server, "forward_lane_calls_total", **PREDICT) == 400
            server.stop()  # nothing is lost
            found = lane_lines(server)
            assert least <= len(found) <= most, share
    line = found[0]
    assert (line["images"], line["model"], line["version"]) == (1, "mnist", 1)
    assert line["request_bytes"] == len(ONE_IMAGE.SerializeToString())
    assert line["response_bytes"] > 40
    assert line["method"] == "/forward.v1.ForwardService/Predict"
    parts = line["queue_ms"] + line["compute_ms"] + line["encode_ms"]
    assert 0 < parts <= line["total_ms"] + 0.01


# Its event loop is busy for 4 s with the first call.
BUSY = """
import sys, time
from server.observability.calls import CallObserver
observe = CallObserver.observe_lane
def slow(*arguments, **options):
    CallObserver.observe_lane = observe
    time.sleep(4)
    observe(*arguments, **options)
CallObserver.observe_lane = slow
from server.__main__ import main
sys.exit(main())
"""


def test_calls_that_the_log_can_not_get_in_time_are_counted(tmp_path: Path) -> None:
    ports = ("--grpc-port", "0", "--metrics-port", "0", "--http-port", "off")
    command = [sys.executable, "-c", BUSY, "--transport", "native", "--access-log", "1", *ports]
    log = tmp_path / "log"
    with log.open("wb") as stderr:
        process = subprocess.Popen(command, cwd=REPOSITORY, stderr=stderr)
    try:
        wait_until(lambda: '"ready"' in log.read_text())
        (ready,) = (each for each in entries(log) if each["event"] == "ready")
        server = RunningServer(process, log, ready)
        with grpc.insecure_channel(server.address, ALONE) as channel:
            predict = ForwardServiceStub(channel).Predict
            for _ in range(40):
                for call in [predict.future(ONE_IMAGE, timeout=60) for _ in range(100)]:
                    call.result()
        assert metric(server, "forward_lane_observations_dropped_total") > 0

        def all_are_accounted_for() -> bool:
            # Where the thread that writes is late, the log drops lines as well.
            counters = (
                "forward_lane_observations_dropped_total",
                "forward_log_lines_dropped_total",
            )
            return has_lines(server, 4000 - sum(metric(server, each) for each in counters))

        wait_until(all_are_accounted_for)
    finally:
        process.terminate()
        process.wait(30)
