"""Limits of connections, as clients meet them, and the settings that set them."""

import resource
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import h2.errors
import h2.events
import numpy as np
import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from export.bundle import Bundle
from forward.v1 import forward_pb2 as pb
from forward.v1.forward_pb2_grpc import ForwardServiceStub
from forward_client import ForwardClient, ForwardError
from forward_client.messages import tensor_of
from server.descriptors import OTHER_DESCRIPTORS
from tests.support.faults import (
    ALONE,
    ONE,
    RawClient,
    client_process,
    connect,
    connections,
    grpc_port,
    is_prompt,
)
from tests.support.servers import RunningServer, scrape, start_held_server, start_server, wait_until

# Each takes the constants for itself.
OF_OPTIONS = ("server.transport.grpc.options", "server.transport.native.options")


def open_streams(channel: grpc.Channel, count: int, done: threading.Event) -> list[Any]:
    """Hold calls open that only the client ends: streams of server reflection."""

    def requests() -> Iterator[reflection_pb2.ServerReflectionRequest]:
        yield reflection_pb2.ServerReflectionRequest(list_services="")
        done.wait(60)

    stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)  # the stubs have no methods
    streams = [stub.ServerReflectionInfo(requests()) for _ in range(count)]
    for stream in streams:
        next(stream)
    return streams


def test_connections_over_the_limit_are_closed() -> None:
    with start_server("--max-connections", "3") as server:
        held = [connect(grpc_port(server)) for _ in range(3)]
        wait_until(lambda: len(connections(server)) == 3)
        with ForwardClient(server.address, timeout_seconds=20) as caller:
            with pytest.raises(ForwardError) as refused:
                caller.predict(ONE)
            assert refused.value.code == "UNAVAILABLE"
            held.pop().close()
            wait_until(lambda: len(connections(server)) == 2)
        is_prompt(server)
        for each in held:
            each.close()


def test_connections_leave_descriptors_to_the_metrics() -> None:
    limit = OTHER_DESCRIPTORS + 20
    with start_server(prefix=("prlimit", f"--nofile={limit}:{limit}")) as server:
        warned = [e for e in server.log() if e["event"].startswith("fewer connections")]
        assert [(e["connections"], e["open_files"]) for e in warned] == [(20, limit)]
        held = [connect(grpc_port(server)) for _ in range(100)]
        wait_until(lambda: len(connections(server)) == 20)
        assert scrape(server)
        for each in held:
            each.close()
        wait_until(lambda: not connections(server))
        is_prompt(server)
        assert "File descriptor limit" not in server.log_path.read_text()


def test_a_soft_limit_of_open_files_is_raised_for_connections() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    options = ("--http-port", "0", "--max-connections", "50")
    with start_server(*options, prefix=("prlimit", f"--nofile=100:{hard}")) as server:
        limit, _ = resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)
        assert limit == OTHER_DESCRIPTORS + 2 * 50
        assert not [e for e in server.log() if e["event"].startswith("fewer connections")]


def test_calls_over_the_stream_limit_wait_at_clients() -> None:
    done = threading.Event()
    with (
        start_server("--max-concurrent-streams", "2") as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        service = ForwardServiceStub(channel)
        request = pb.PredictRequest(images=tensor_of(ONE))
        held = open_streams(channel, 1, done)
        service.Predict(request, timeout=20)
        held += open_streams(channel, 1, done)
        with pytest.raises(grpc.RpcError) as waited:
            service.Predict(request, timeout=0.5)
        assert waited.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        is_prompt(server)  # on a connection of its own
        done.set()
        service.Predict(request, timeout=20)


@pytest.mark.parametrize(("most", "sent"), [(2048, 4000), (16384, 17000)])
def test_metadata_over_the_limit_is_refused_with_the_limit(most: int, sent: int) -> None:
    arguments = () if most == 16384 else ("--max-metadata-bytes", str(most))
    with (
        start_server(*arguments) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        service = ForwardServiceStub(channel)
        request = pb.PredictRequest(images=tensor_of(ONE))
        below = most - 1000  # there are headers of gRPC's own, too
        service.Predict(request, metadata=(("x-note", "n" * below),), timeout=20)
        with pytest.raises(grpc.RpcError) as refused:
            service.Predict(request, metadata=(("x-note", "n" * sent),), timeout=20)
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        details = refused.value.details() or ""
        assert "received metadata size exceeds hard limit" in details
        assert f"vs. {most})" in details
        is_prompt(server)


def test_metadata_far_over_the_limit_harm_nobody_else(transport: str) -> None:
    with (
        start_server() as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        request = pb.PredictRequest(images=tensor_of(ONE))
        metadata = (("x-note", "n" * 2_000_000),)
        with pytest.raises(grpc.RpcError) as refused:
            ForwardServiceStub(channel).Predict(request, metadata=metadata, timeout=20)
        # The native transport reads no more than it must: it ends the connection.
        code, text = {
            "python": (grpc.StatusCode.RESOURCE_EXHAUSTED, "vs. 16384)"),
            "native": (grpc.StatusCode.UNAVAILABLE, "header_list_way_too_large"),
        }[transport]
        assert refused.value.code() is code
        assert text in (refused.value.details() or "")
        is_prompt(server)


def test_a_message_over_the_limit_is_refused_with_the_limit() -> None:
    # Twice the largest batch in float32, and 1 MiB.
    limit = 2 * (16 * 784 * 4) + (1 << 20)
    with (
        start_server("--max-batch-images", "16") as server,
        ForwardClient(server.address) as caller,
    ):
        with pytest.raises(ForwardError, match=rf"larger than max \(\d+ vs\. {limit}\)") as refused:
            caller.predict(np.zeros((2000, 28, 28), np.uint8))
        assert refused.value.code == "RESOURCE_EXHAUSTED"
        assert caller.predict(ONE).logits.shape == (1, 10)


@pytest.mark.parametrize(("keepalive", "is_found"), [("1", True), ("0", False)])
def test_keepalive_closes_connections_of_silent_clients(keepalive: str, is_found: bool) -> None:
    with (
        start_server("--keepalive-time", keepalive) as server,
        client_process(server, 1, "once") as silent,
        client_process(server, 1, "once"),
    ):
        before = connections(server)
        assert len(before) == 2
        silent.send_signal(signal.SIGSTOP)  # its kernel goes on, and acknowledges every byte
        if is_found:
            wait_until(lambda: len(connections(server)) == 1)
        time.sleep(2.5)  # the other is idle for more than two pings
        left = connections(server)
        assert left <= before, "a client had to connect anew"
        assert len(left) == (1 if is_found else 2)
        is_prompt(server)


def test_a_call_whose_client_went_silent_is_ended() -> None:
    with start_server("--keepalive-time", "1") as server, RawClient(grpc_port(server)) as client:
        client.open_call("PredictStream")
        client.events_until(h2.events.RemoteSettingsChanged)
        wait_until(lambda: len(connections(server)) == 1)
        wait_until(lambda: not connections(server))  # it reads no more, so it answers no ping
        cancelled = {
            "grpc_service": "forward.v1.ForwardService",
            "grpc_method": "PredictStream",
            "grpc_type": "bidi_stream",
            "grpc_code": "CANCELLED",
        }
        key = ("grpc_server_handled_total", frozenset(cancelled.items()))
        wait_until(lambda: scrape(server)[key] == 1)


def ping(client: RawClient, count: int, pause_seconds: float) -> list[h2.events.Event]:
    """Ping so many times; return what came up to the end of the connection."""
    seen: list[h2.events.Event] = []
    for number in range(count):
        client.http.ping(number.to_bytes(8))
        try:
            client.flush()
        except (BrokenPipeError, ConnectionResetError):
            return seen + client.events_until(h2.events.ConnectionTerminated, 1)
        seen += client.events_until(h2.events.ConnectionTerminated, pause_seconds)
        if any(isinstance(event, h2.events.ConnectionTerminated) for event in seen):
            break
    return seen


@pytest.mark.parametrize(("pause_seconds", "is_allowed"), [(0.6, True), (0.02, False)])
def test_an_idle_client_may_ping_at_intervals(
    bundle: Bundle, pause_seconds: float, is_allowed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in OF_OPTIONS:
        monkeypatch.setattr(f"{module}.MIN_PING_SECONDS", 0.3)
    with start_held_server(bundle) as server:
        with RawClient(int(server.address.split(":")[1])) as client:
            seen = ping(client, 6, pause_seconds)
        ended = [e for e in seen if isinstance(e, h2.events.ConnectionTerminated)]
        answered = [e for e in seen if isinstance(e, h2.events.PingAckReceived)]
        if is_allowed:
            assert not ended
            assert len(answered) == 6
        else:
            assert [e.error_code for e in ended] == [h2.errors.ErrorCodes.ENHANCE_YOUR_CALM]
            assert ended[0].additional_data == b"too_many_pings"


def call_for(server: RunningServer, seconds: float) -> int:
    """Call on a connection of one's own; return how often."""
    deadline, calls = time.monotonic() + seconds, 0
    request = pb.PredictRequest(images=tensor_of(ONE))
    with grpc.insecure_channel(server.address, ALONE) as channel:
        predict = ForwardServiceStub(channel).Predict
        while time.monotonic() < deadline:
            predict(request, timeout=20)  # any failure fails the test
            calls += 1
    return calls


@pytest.mark.parametrize(("age", "is_renewed"), [("1", True), ("0", False)])
def test_clients_reconnect_at_the_maximum_connection_age(age: str, is_renewed: bool) -> None:
    ports: set[int] = set()
    with (
        start_server("--max-connection-age", age) as server,
        ThreadPoolExecutor(4) as pool,
    ):
        callers = [pool.submit(call_for, server, 3.5) for _ in range(4)]
        while not all(caller.done() for caller in callers):
            ports |= connections(server)
            time.sleep(0.05)
        assert all(caller.result() > 10 for caller in callers)
    assert len(ports) >= 8 if is_renewed else len(ports) == 4


def test_an_old_connections_streams_end_after_grace(transport: str) -> None:
    done = threading.Event()
    arguments = ("--max-connection-age", "1", "--drain-timeout", "1.5")
    with start_server(*arguments) as server, grpc.insecure_channel(server.address) as channel:
        started = time.monotonic()
        (stream,) = open_streams(channel, 1, done)
        with pytest.raises(grpc.RpcError) as ended:
            next(stream)
        assert ended.value.code() is grpc.StatusCode.UNAVAILABLE
        # The native transport resets the streams.
        assert transport == "native" or ended.value.details() == "max connection age"
        assert time.monotonic() - started > 0.9 + 1.5  # gRPC varies the age by a tenth
        done.set()
        health = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        assert health(health_pb2.HealthCheckRequest(), timeout=20).status == 1


def test_an_unfinished_handshake_is_dropped(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in OF_OPTIONS:
        monkeypatch.setattr(f"{module}.HANDSHAKE_SECONDS", 1)
    with start_held_server(bundle) as server:
        port = int(server.address.split(":")[1])
        silent, slow = connect(port), connect(port)
        slow.sendall(b"PRI * HTTP/2.0\r\n")  # the first half of the preface
        started = time.monotonic()
        for each in (silent, slow):
            while each.recv(65536):
                pass
            each.close()
        assert 0.5 < time.monotonic() - started < 15
