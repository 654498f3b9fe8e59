"""SIGUSR1: a server says in its log what every call in flight waits for."""

import signal
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h2.events
import numpy as np
import pytest
import structlog

from export.bundle import Bundle
from forward_client import ForwardClient
from server.observability.calls import CallObserver
from server.observability.engine_metrics import BATCHERS
from server.observability.in_flight import MAX_LINES, log_in_flight
from server.observability.metrics import ServerMetrics
from server.observability.request_id import NO_IDENTITY
from tests.support.bundles import random_images
from tests.support.callers import client_of
from tests.support.faults import RawClient, grpc_port
from tests.support.servers import (
    HeldServer,
    server_command,
    start_held_server,
    start_server,
    wait_until,
)

PREDICT, STREAM = "/forward.v1.ForwardService/Predict", "/forward.v1.ForwardService/PredictStream"
EXPECTED = {"runs": "run", "queues": "queue", "reads": "read", "half": "read"}
Line = dict[str, Any]


def calls_of(lines: list[Line]) -> dict[str, Line]:
    """Return the lines of calls by the ids of their requests."""
    return {line["request_id"]: line for line in lines if line["event"] == "call in flight"}


def waits(lines: list[Line]) -> dict[str, str]:
    """Return what each call waits for."""
    return {name: line["waits_for"] for name, line in calls_of(lines).items()}


def asked(server: HeldServer) -> list[Line]:
    """Return what a server says of its calls in flight."""
    with structlog.testing.capture_logs() as lines:
        log_in_flight(server.observer, lambda: server.admission.images)
    return [dict(line) for line in lines]


@contextmanager
def half_a_request(address: str, request_id: str) -> Iterator[None]:
    """Send the begin of a request over HTTP, and the rest never."""
    host, _, port = address.rpartition(":")
    head = f"POST {PREDICT} HTTP/1.1\r\nhost: {host}\r\nx-request-id: {request_id}\r\n"
    body = "content-type: application/json\r\ncontent-length: 99\r\n\r\n{"
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall((head + body).encode())
        yield


def test_a_call_waits_for_its_request_its_run_or_its_turn(bundle: Bundle) -> None:
    with start_held_server(bundle) as server, ThreadPoolExecutor(3) as threads:

        def predict(request_id: str) -> object:
            with client_of(server, x_request_id=request_id) as client:
                return client.predict(random_images(2, (28, 28)))

        def stream(request_id: str) -> list[Any]:
            with client_of(server, x_request_id=request_id) as client:
                return list(client.predict_stream(then_nothing()))

        def then_nothing() -> Iterator[np.ndarray]:
            yield random_images(1, (1, 1))  # which is answered, by an error
            server.runner.let_go.wait()

        first = threads.submit(predict, "runs")
        assert server.runner.started.acquire(timeout=30)
        second = threads.submit(predict, "queues")
        third = threads.submit(stream, "reads")
        with half_a_request(server.http_address, "half"):
            wait_until(lambda: len(calls_of(asked(server))) == 4)
            wait_until(lambda: waits(asked(server)) == EXPECTED)
            lines = asked(server)
        server.runner.let_go.set()
        for done in (first, second, third):
            done.result()
        wait_until(lambda: not calls_of(asked(server)))
    calls = calls_of(lines)
    assert calls["runs"]["method"] == PREDICT
    assert calls["reads"]["method"] == STREAM
    assert (calls["half"]["transport"], calls["runs"]["transport"]) == ("http", "grpc")
    assert calls["runs"]["images"] == 2
    ages = [line["age_ms"] for line in lines[1:]]
    assert ages == sorted(ages, reverse=True)
    summary = lines[0]
    assert (summary["calls"], summary["shown"], summary["queue_images"]) == (4, 4, 4)
    assert summary["oldest_ms"].keys() == set(BATCHERS)


def test_a_response_is_made_and_then_written() -> None:
    observer = CallObserver(ServerMetrics())
    record = observer.begin(PREDICT, "grpc", "peer", NO_IDENTITY)
    phases = [record.phase]
    record.encoded(10)
    assert [*phases, record.phase] == ["read", "write"]


def test_of_very_many_calls_the_oldest_are_shown() -> None:
    observer = CallObserver(ServerMetrics())
    records = [observer.begin(PREDICT, "grpc", "peer", NO_IDENTITY) for _ in range(MAX_LINES + 50)]
    with structlog.testing.capture_logs() as lines:
        log_in_flight(observer, lambda: 0)
    assert lines[0]["calls"] == MAX_LINES + 50
    shown = [line["request_id"] for line in lines[1:]]
    assert shown == [record.request_id for record in records[:MAX_LINES]]


def test_the_signal_asks_a_server(transport: str) -> None:
    with start_server("--http-port", "0", "--transport", transport) as server:
        with half_a_request(server.http_address, "half"):

            def is_seen() -> bool:
                server.process.send_signal(signal.SIGUSR1)
                return "half" in calls_of(server.log())

            wait_until(is_seen)
        line = calls_of(server.log())["half"]
        assert (line["waits_for"], line["method"]) == ("read", PREDICT)
        with ForwardClient(server.address, timeout_seconds=60) as client:
            client.predict(random_images(1, (28, 28)))
        assert server.stop() == 0


@pytest.mark.one_transport
def test_the_signal_counts_calls_that_python_does_not_have(transport: str) -> None:
    """As they are then, though nobody reads the metrics."""
    if transport != "native":
        pytest.skip("the native transport is not installed")
    with start_server("--transport", transport) as server, RawClient(grpc_port(server)) as client:
        client.open_call("Predict")  # its message never comes
        client.events_until(h2.events.SettingsAcknowledged)

        def is_counted() -> bool:
            server.process.send_signal(signal.SIGUSR1)
            lines = [line for line in server.log() if line["event"] == "in flight"]
            return bool(lines) and lines[-1]["lane_calls"] == 1

        wait_until(is_counted)


@pytest.mark.one_transport
def test_the_signal_ends_no_server_that_starts(transport: str) -> None:
    command = server_command(["--grpc-port", "0", "--metrics-port", "0", "--transport", transport])
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        status = Path(f"/proc/{process.pid}/status")
        wait_until(lambda: ignores(status, signal.SIGUSR1), 60)
        process.send_signal(signal.SIGUSR1)
        for line in process.stderr:
            if "ready" in line:
                break
        assert process.poll() is None
        process.terminate()
        process.stderr.read()
        assert process.wait(60) == 0


def ignores(status: Path, number: signal.Signals) -> bool:
    """Tell if a process ignores a signal."""
    lines = status.read_text().splitlines()
    mask = next(line.split()[1] for line in lines if line.startswith("SigIgn:"))
    return bool(int(mask, 16) & 1 << (number - 1))
