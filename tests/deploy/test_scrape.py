"""A real Prometheus scrapes a real server: its results are what the client counted."""

import signal
import socket
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.bundles import publish_random_bundle
from tests.support.certificates import Authority
from tests.support.counting import COMPARE, UNKNOWN, CountingClient, server_options
from tests.support.failing_runs import FailingServer, start_failing_server
from tests.support.prometheus import Prometheus, start_prometheus
from tests.support.servers import metric, start_server, wait_until

LABELS = tuple("0123456789")
HANDSHAKES = 3


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "tls")


@pytest.fixture
def options(tmp_path: Path, authority: Authority) -> Sequence[str]:
    return server_options(tmp_path, authority)


def scraped_calls(prometheus: Prometheus) -> Counter[tuple[str, str, str]]:
    """Return the calls over gRPC that Prometheus knows of, by service, method and status."""
    by = "grpc_service, grpc_method, grpc_code"
    found: Counter[tuple[str, str, str]] = Counter()
    for each in prometheus.query(f"sum by ({by}) (grpc_server_handled_total) > 0"):
        service, method, code = (each.labels[name] for name in by.split(", "))
        found[service, method, code] = int(each.value)
    return found


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
def held_call(failing: FailingServer, client: CountingClient) -> Iterator[None]:
    """Have a call run through the block, so that a drain waits for it."""
    with failing.runs("wait"), ThreadPoolExecutor(1) as pool, client.channel() as channel:
        held = pool.submit(client.call, channel, COMPARE)
        wait_until(lambda: metric(failing.running, "forward_calls_in_flight") == 1)
        yield
        assert not held.done()


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
        with failing.runs("fail"):
            client.load(1, 40)
        with client.channel() as channel:
            assert client.call(channel, UNKNOWN, ("unknown", "unknown")) == "UNIMPLEMENTED"
        check(prometheus, client)
        statuses = {status for _, _, status in client.grpc}
        assert {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "UNAUTHENTICATED", "INTERNAL"} <= statuses
        assert prometheus.value('forward_model_reloads_total{result="success"}') == 1
        assert {each.labels["version"] for each in prometheus.query("forward_model_info")} == {"2"}
        with held_call(failing, client):
            server.process.send_signal(signal.SIGTERM)
            wait_until(lambda: any(each["event"] == "refusing calls" for each in server.log()))
            client.load(1, 40)
            check(prometheus, client)
        assert ("forward.v1.ForwardService", "Predict", "UNAVAILABLE") in client.grpc
        assert ("/forward.v1.ForwardService/Predict", "503") in client.http
        assert client.uncounted == {}
        assert server.process.wait(60) == 0


def test_refused_handshakes_are_counted(
    options: Sequence[str], authority: Authority, transport: str
) -> None:
    """Of gRPC only by the native transport, for grpcio tells nothing of them."""
    with (
        start_server(*options) as server,
        start_prometheus([f"127.0.0.1:{server.ready['metrics_port']}"]) as prometheus,
    ):
        client = CountingClient(server, authority)
        ports = {"http": int(server.ready["http_port"])}
        if transport == "native":
            ports["grpc"] = int(server.ready["grpc_port"])
        for port in ports.values():
            fail_handshakes(port)
        client.load(1, 10)
        check(prometheus, client)
        refused = prometheus.query(
            "sum by (transport, reason) (forward_connections_refused_total) > 0"
        )
        assert {
            (each.labels["transport"], each.labels["reason"], each.value) for each in refused
        } == {(name, "tls", HANDSHAKES) for name in ports}
