"""Faults of the network and of clients: nobody else notices, and nothing of them stays behind."""

import os
import resource
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import grpc
import h2.errors
import h2.events
import h2.settings
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.load.h2load import frame
from forward.v1 import forward_pb2 as pb
from forward_client import ForwardClient
from forward_client.messages import tensor_of
from server.observability.metrics import ServerMetrics
from server.observability.metrics_http import MAX_CONNECTIONS, serve_metrics
from tests.support.bundles import random_images
from tests.support.faults import (
    ONE,
    RawClient,
    client_process,
    connect,
    connections,
    descriptors,
    grpc_port,
    is_prompt,
    threads,
    unharmed,
)
from tests.support.servers import RunningServer, metric, scrape, start_server, wait_until

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
PREDICT = frame(pb.PredictRequest(images=tensor_of(ONE)).SerializeToString())


@pytest.fixture(scope="module")
def server(transport: str) -> Iterator[RunningServer]:
    """A server that nobody is connected to before a test."""
    with start_server("--transport", transport) as running:
        yield running


GARBAGE = [
    os.urandom(4096),
    b"GET / HTTP/1.1\r\nHost: forward\r\n\r\n",
    b"POST /forward.v1.ForwardService/Predict HTTP/1.1\r\nContent-Length: 9\r\n\r\n123456789",
    bytes.fromhex("16030100a5010000a10303") + os.urandom(154),  # a TLS handshake
    PREFACE + os.urandom(4096),
    PREFACE + b"\xff\xff\xff\x00" + bytes(5),  # a frame of 16 MiB
]


@pytest.mark.parametrize("sent", GARBAGE, ids=["random", "get", "post", "tls", "frames", "giant"])
def test_what_is_not_http2_is_disconnected(server: RunningServer, sent: bytes) -> None:
    with unharmed(server), connect(grpc_port(server)) as faulty:
        faulty.sendall(sent)
        try:
            while faulty.recv(65536):  # the settings, perhaps a GOAWAY, and the end
                pass
        except ConnectionResetError:
            pass


@given(
    prefix=st.sampled_from([b"", PREFACE, PREFACE + bytes.fromhex("000000040000000000")]),
    sent=st.binary(max_size=200),
)
@settings(max_examples=60)
def test_the_server_survives_any_bytes_on_its_port(
    server: RunningServer, prefix: bytes, sent: bytes
) -> None:
    with connect(grpc_port(server)) as faulty:
        faulty.sendall(prefix + sent)
    is_prompt(server)


def send_giant_headers(server: RunningServer) -> None:
    """Send 30 MB of headers of one call that never end, or as much of them as is taken."""
    block = b"\x00\x01x\x7f\xe9\x06" + b"v" * 1000  # a name of 1 byte, a value of 1000
    with RawClient(grpc_port(server)) as faulty:
        faulty.socket.sendall(b"\x00\x00\x00\x01\x00\x00\x00\x00\x01")
        with suppress(BrokenPipeError, ConnectionResetError, TimeoutError):
            for _ in range(30_000):
                length = len(block).to_bytes(3)
                faulty.socket.sendall(length + b"\x09\x00\x00\x00\x00\x01" + block)
        is_prompt(server)


def test_giant_headers_are_refused_without_harm(server: RunningServer) -> None:
    for _ in range(6):
        send_giant_headers(server)  # the allocator has its memory by now
    with unharmed(server):
        for _ in range(4):
            send_giant_headers(server)


def test_clients_killed_in_a_request_leave_nothing(server: RunningServer) -> None:
    ended = threading.Event()

    def call_on() -> int:
        calls = 0
        with ForwardClient(server.address, timeout_seconds=30) as caller:
            while not ended.is_set():
                assert caller.predict(ONE).logits.shape == (1, 10)
                calls += 1
        return calls

    def kill_some() -> None:
        with ExitStack() as stack:
            clients = [client_process(server, 1000, "always") for _ in range(3)]
            killed = [stack.enter_context(client) for client in clients]
            time.sleep(0.3)
            for each in killed:
                each.kill()

    kill_some()  # large requests have their memory by now
    with unharmed(server), ThreadPoolExecutor(2) as pool:
        others = [pool.submit(call_on) for _ in range(2)]
        kill_some()
        ended.set()
        assert all(other.result() > 10 for other in others)
    wait_until(lambda: metric(server, "forward_queue_images") == 0)


def test_a_client_that_never_reads_delays_nobody(server: RunningServer) -> None:
    """It gives its answers no window, so they wait in the server until it hangs up."""
    with unharmed(server), RawClient(grpc_port(server)) as faulty:
        code = h2.settings.SettingCodes.INITIAL_WINDOW_SIZE
        faulty.http.update_settings({code: 0})
        faulty.flush()
        faulty.events_until(h2.events.SettingsAcknowledged)
        before = metric(server, "forward_images_total", batcher="predict")
        for _ in range(200):
            stream = faulty.open_call("Predict")
            faulty.events_until(h2.events.WindowUpdated, 0.01)
            faulty.http.send_data(stream, PREDICT, end_stream=True)
            faulty.flush()
        wait_until(
            lambda: metric(server, "forward_images_total", batcher="predict") >= before + 200
        )
        assert metric(server, "forward_queue_images") == 0
        is_prompt(server)


def test_a_sender_that_never_finishes_delays_nobody(server: RunningServer) -> None:
    with unharmed(server), ExitStack() as stack:
        for _ in range(20):
            faulty = stack.enter_context(RawClient(grpc_port(server)))
            faulty.events_until(h2.events.SettingsAcknowledged)
            faulty.http.send_data(faulty.open_call("Predict"), PREDICT[:1000])
            faulty.flush()
        for _ in range(10):
            is_prompt(server)
        assert metric(server, "forward_queue_images") == 0


def test_calls_reset_at_once_delay_nobody(server: RunningServer) -> None:
    with unharmed(server), RawClient(grpc_port(server)) as faulty:
        faulty.events_until(h2.events.SettingsAcknowledged)
        try:
            for _ in range(3000):
                stream = faulty.open_call("Predict")
                faulty.http.reset_stream(stream, h2.errors.ErrorCodes.CANCEL)
                faulty.flush()
        except (BrokenPipeError, ConnectionResetError):
            pass  # the server may hang up on it
        is_prompt(server)


def test_a_server_without_file_descriptors_recovers() -> None:
    # More connections than there are descriptors: something else of the process has taken them.
    with start_server() as server, ForwardClient(server.address) as old:
        old.predict(ONE)
        process = psutil.Process(server.process.pid)
        most = descriptors(server) + 10
        _, hard = resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (most, hard))
        held = [connect(grpc_port(server)) for _ in range(20)]
        wait_until(lambda: descriptors(server) == most)
        held += [connect(server.ready["metrics_port"]) for _ in range(3)]
        began, used = time.monotonic(), sum(process.cpu_times()[:2])
        while time.monotonic() - began < 2:
            assert old.predict(ONE).logits.shape == (1, 10)
            time.sleep(0.1)
        assert sum(process.cpu_times()[:2]) - used < 1, "it spins"
        for each in held:
            each.close()
        is_prompt(server)
        assert scrape(server)
        assert "Traceback" not in server.log_path.read_text()


def test_the_metrics_port_serves_the_newest_connections() -> None:
    with start_server() as server:
        assert scrape(server)
        before = threads(server), descriptors(server)
        held = [connect(server.ready["metrics_port"]) for _ in range(100)]
        for _ in range(3):
            assert scrape(server)
        assert threads(server) <= before[0] + MAX_CONNECTIONS
        assert descriptors(server) <= before[1] + MAX_CONNECTIONS
        is_prompt(server)
        for each in held:
            each.close()
        wait_until(lambda: threads(server) <= before[0])
        assert "Traceback" not in server.log_path.read_text()


def test_a_silent_scrape_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.observability.metrics_http._Handler.timeout", 0.5)
    port = serve_metrics(ServerMetrics(), "127.0.0.1", 0)
    with connect(port) as silent:
        silent.sendall(b"GET /metrics HTTP/1.1\r\n")  # and nothing more
        assert silent.recv(65536) == b""


LIBFAKETIME = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))


def test_a_clock_jump_changes_only_log_times(tmp_path: Path) -> None:
    if not LIBFAKETIME:
        pytest.skip("needs Debian's libfaketime")
    clock = tmp_path / "clock"

    def set_clock(offset: str) -> None:
        (tmp_path / "next").write_text(offset)
        (tmp_path / "next").replace(clock)  # at once: it is read all the time

    set_clock("+0")
    environment = {
        "LD_PRELOAD": str(LIBFAKETIME[0]),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    images = random_images(64, (28, 28))
    arguments = ("--drain-delay", "1", "--keepalive-time", "1")
    with start_server(*arguments, **environment) as server:

        def call(seconds: float) -> int:
            calls, until = 0, time.monotonic() + seconds
            with ForwardClient(server.address, timeout_seconds=5) as caller:
                while time.monotonic() < until:
                    assert caller.predict(images).logits.shape == (64, 10)
                    calls += 1
            return calls

        with client_process(server, 1, "once"), ThreadPoolExecutor(4) as pool:
            before = connections(server)
            callers: list[Future[int]] = [pool.submit(call, 2) for _ in range(4)]
            for jump in ("+2h", "-2h", "+3650d", "-1d", "+1d"):
                set_clock(jump)
                time.sleep(0.3)
            assert all(caller.result() > 10 for caller in callers)
            assert before <= connections(server), "a connection was given up"
        started = time.monotonic()
        assert server.stop(signal.SIGTERM) == 0
        assert 1 <= time.monotonic() - started < 10
        ready, draining = (
            next(entry["timestamp"] for entry in server.log() if entry["event"] == event)
            for event in ("ready", "draining")
        )
    assert draining[:10] > ready[:10], "the clock did not jump"


def test_a_partial_request_on_a_broken_connection_is_forgotten(server: RunningServer) -> None:
    with unharmed(server):
        for _ in range(20):
            with RawClient(grpc_port(server)) as faulty:
                faulty.events_until(h2.events.SettingsAcknowledged)
                faulty.http.send_data(faulty.open_call("Predict"), PREDICT[:1000])
                faulty.flush()
                # A reset in place of an orderly end.
                linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"
                faulty.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    with grpc.insecure_channel(server.address) as channel:
        grpc.channel_ready_future(channel).result(20)
