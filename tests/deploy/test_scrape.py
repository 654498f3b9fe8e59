"""A real Prometheus scrapes a real server: its results are what the client counted."""

import re
import shutil
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from tests.support.bundles import MODELS_DIR, publish_random_bundle
from tests.support.certificates import Authority
from tests.support.counting import AUTHORIZED, TOKEN, UNKNOWN, CountingClient
from tests.support.failing_runs import FailingServer, start_failing_server
from tests.support.prometheus import Prometheus, start_prometheus
from tests.support.servers import RunningServer, metric, start_server, wait_until

LABELS = tuple("0123456789")
HELD_SECONDS = 20  # that a drain waits for a call which its client holds open
HANDSHAKES = 3


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "tls")


@pytest.fixture
def options(tmp_path: Path, authority: Authority) -> Sequence[str]:
    """TLS, tokens, HTTP, a queue that is soon full, and a repository of its own."""
    tokens = tmp_path / "tokens"
    tokens.write_text(f"{TOKEN}\n")
    tokens.chmod(0o600)
    shutil.copytree(MODELS_DIR / "mnist" / "1", tmp_path / "models" / "mnist" / "1")
    return (
        *("--http-port", "0", "--token-file", str(tokens), *authority.issue().arguments()),
        *("--models-dir", str(tmp_path / "models"), "--reload-interval", "0.2"),
        *("--max-batch-images", "64", "--max-queue-images", "64"),
        *("--drain-timeout", str(HELD_SECONDS)),
    )


def scraped_calls(prometheus: Prometheus) -> Counter[tuple[str, str, str]]:
    """Return the calls over gRPC that Prometheus knows of, by service, method and status."""
    by = "grpc_service, grpc_method, grpc_code"
    results = prometheus.query(f"sum by ({by}) (grpc_server_handled_total) > 0")
    names = by.split(", ")
    return Counter(
        {tuple(each.labels[name] for name in names): int(each.value) for each in results}
    )


def scraped_requests(prometheus: Prometheus) -> Counter[tuple[str, str]]:
    """Return the HTTP requests that Prometheus knows of, by route and status."""
    results = prometheus.query("sum by (http_route, http_code) (forward_http_requests_total) > 0")
    return Counter(
        {(each.labels["http_route"], each.labels["http_code"]): int(each.value) for each in results}
    )


def check(prometheus: Prometheus, client: CountingClient) -> None:
    """Compare what Prometheus knows with what the client counted, once it has scraped all."""
    prometheus.wait_for_scrape()
    assert scraped_calls(prometheus) == client.grpc
    assert scraped_requests(prometheus) == client.http


@contextmanager
def held_stream(client: CountingClient) -> Iterator[None]:
    """Hold a call open, which a drain waits for; its method is not counted."""
    done = threading.Event()

    def requests() -> Iterator[reflection_pb2.ServerReflectionRequest]:
        yield reflection_pb2.ServerReflectionRequest(list_services="")
        done.wait(60)

    with client.channel() as channel:
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)  # the stubs have no methods
        stream = stub.ServerReflectionInfo(requests(), metadata=tuple(AUTHORIZED.items()))
        next(stream)
        yield
        done.set()


def fail_handshakes(port: int) -> None:
    """Speak no TLS to a port that wants it."""
    for _ in range(HANDSHAKES):
        with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
            while connection.recv(1024):
                pass


def test_prometheus_counts_what_the_client_counted(
    options: Sequence[str], authority: Authority, tmp_path: Path
) -> None:
    """For every method and status, also across a reload, failed runs, handshakes and a drain."""
    with (
        start_failing_server(*options) as failing,
        start_prometheus([f"127.0.0.1:{failing.running.ready['metrics_port']}"]) as prometheus,
    ):
        server = failing.running
        client = CountingClient(server, authority)
        loading = threading.Thread(target=client.load, args=(2, 100))
        loading.start()
        publish_random_bundle(tmp_path / "models", "mnist", (28, 28), LABELS)
        wait_until(lambda: metric(server, "forward_model_reloads_total", result="success") == 1, 60)
        loading.join()
        with failing.broken():
            client.load(1, 40)
        with client.channel() as channel:
            assert client.call(channel, UNKNOWN, ("unknown", "unknown")) == "UNIMPLEMENTED"
        check(prometheus, client)
        statuses = {status for _, _, status in client.grpc}
        assert {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "UNAUTHENTICATED", "INTERNAL"} <= statuses
        assert prometheus.value('forward_model_reloads_total{result="success"}') == 1
        assert {each.labels["version"] for each in prometheus.query("forward_model_info")} == {"2"}
        with held_stream(client):
            end(server)
            client.load(1, 40)
            check(prometheus, client)
        assert ("forward.v1.ForwardService", "Predict", "UNAVAILABLE") in client.grpc
        assert client.uncounted == {}


def end(server: RunningServer) -> None:
    """Have a server drain; return when it refuses calls."""
    server.process.send_signal(signal.SIGTERM)
    wait_until(lambda: any(each["event"] == "refusing calls" for each in server.log()))
