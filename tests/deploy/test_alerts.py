"""Each alert fires in a real Prometheus when its fault is provoked on a real server, and ends.

The rules are those of deploy/prometheus/, quickened: every window, `for` and interval is a
hundredth, so that 5 minutes are 3 s. Thresholds are as they are.
"""

import itertools
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

from forward_client import ForwardClient, ForwardError
from tests.support.bundles import MODELS_DIR, random_images
from tests.support.certificates import Authority
from tests.support.failing_runs import start_failing_server
from tests.support.faults import connect, grpc_port
from tests.support.ports import free_port
from tests.support.prometheus import RULES, Prometheus, quickened, start_prometheus
from tests.support.servers import RunningServer, start_server, wait_until

pytestmark = pytest.mark.one_transport

FACTOR = 100
INTERVAL = "300ms"
ALERT_SECONDS = 60  # of a machine with much else to do
# Many are computed in a thread, one in the event loop.
ONE, MANY = random_images(1, (28, 28)), random_images(128, (28, 28))


@contextmanager
def watched(server: RunningServer, factor: int = FACTOR) -> Iterator[Prometheus]:
    """Watch a server by the quickened rules."""
    target = f"127.0.0.1:{server.ready['metrics_port']}"
    rules = [quickened(path.read_text(), factor) for path in RULES]
    with start_prometheus([target], rules=rules, interval=INTERVAL) as prometheus:
        prometheus.wait_for_scrape()
        yield prometheus


def wait_for(prometheus: Prometheus, name: str, **labels: str) -> None:
    wait_until(lambda: prometheus.fires(name, **labels), ALERT_SECONDS)


def wait_for_end(prometheus: Prometheus, name: str, **labels: str) -> None:
    wait_until(lambda: not prometheus.fires(name, **labels), ALERT_SECONDS)


@contextmanager
def repeated(
    work: Callable[[ForwardClient], object], server: RunningServer, callers: int = 1
) -> Iterator[None]:
    """Do something again and again, whatever comes of it, in a thread for each caller."""
    ended = threading.Event()

    def run() -> None:
        with ForwardClient(server.address, timeout_seconds=20) as client:
            while not ended.wait(0.001):
                with suppress(ForwardError):
                    work(client)

    threads = [threading.Thread(target=run) for _ in range(callers)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join(60)


def test_a_server_without_faults_fires_nothing() -> None:
    with start_server() as server, watched(server) as prometheus, repeated(predict_one, server):
        wait_until(lambda: bool(prometheus.query("job:forward_calls:rate5m > 0")))
        for _ in range(20):
            prometheus.wait_for_scrape()
        # On a machine with much else to do, calls and timers can be late in earnest.
        late = {"ForwardLatencyBudgetBurn", "ForwardEventLoopLag"}
        assert {each["alertname"] for each in prometheus.firing()} <= late


def predict_one(client: ForwardClient) -> object:
    return client.predict(ONE)


def test_an_overload_is_a_full_queue() -> None:
    with (
        start_server("--max-batch-images", "128", "--max-queue-images", "128") as server,
        watched(server) as prometheus,
    ):
        with repeated(lambda client: client.predict(MANY), server, callers=8):
            wait_for(prometheus, "ForwardQueueFull")
        wait_for_end(prometheus, "ForwardQueueFull")
        assert not prometheus.fires("ForwardRejecting")


def test_a_broken_runtime_spends_the_error_budget() -> None:
    """The alert of the short windows ends; those of hours, quickened to minutes, go on."""
    fast = {"window": "1h"}
    with (
        start_failing_server() as failing,
        watched(failing.running) as prometheus,
        repeated(lambda client: client.trace(ONE), failing.running),
    ):
        with failing.runs("fail"):
            wait_for(prometheus, "ForwardErrorBudgetBurn", **fast)
        wait_for_end(prometheus, "ForwardErrorBudgetBurn", **fast)


def test_wrong_requests_are_rejected_and_no_failures() -> None:
    with start_server() as server, watched(server) as prometheus:
        with repeated(lambda client: client.predict(np.zeros((1, 5, 5), np.uint8)), server):
            wait_for(prometheus, "ForwardRejecting")
            assert not prometheus.fires("ForwardErrorBudgetBurn")
        wait_for_end(prometheus, "ForwardRejecting")


def test_a_broken_version_fails_to_reload_until_it_is_gone(tmp_path: Path) -> None:
    models = tmp_path / "models" / "mnist"
    shutil.copytree(MODELS_DIR / "mnist" / "1", models / "1")
    options = ("--models-dir", str(models.parent), "--reload-interval", "0.2")
    with start_server(*options) as server, watched(server) as prometheus:
        shutil.copytree(models / "1", models / "2")  # its manifest says that it is version 1
        wait_for(prometheus, "ForwardReloadFailed")
        shutil.rmtree(models / "2")
        wait_for_end(prometheus, "ForwardReloadFailed")


def test_a_certificate_expires_and_a_wrong_one_is_not_taken(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "tls")
    pair = authority.issue(days=1)
    with start_server(*pair.arguments()) as server, watched(server) as prometheus:
        wait_for(prometheus, "ForwardCertificateExpires")
        pair.key.write_text("no key")
        wait_for(prometheus, "ForwardFilesStale")
        authority.renew(pair, days=90)
        wait_for_end(prometheus, "ForwardFilesStale")
        wait_for_end(prometheus, "ForwardCertificateExpires")


def test_a_killed_server_is_down_until_it_is_back() -> None:
    port = ("--metrics-port", str(free_port()))
    with start_server(*port) as server, watched(server) as prometheus:
        server.stop(signal.SIGKILL)
        wait_for(prometheus, "ForwardDown")
        with start_server(*port):
            wait_for_end(prometheus, "ForwardDown")


def test_a_run_that_hangs_stalls_the_queue() -> None:
    with (
        start_failing_server("--transport", "python") as failing,
        watched(failing.running) as prometheus,
        ThreadPoolExecutor(2) as pool,
        ForwardClient(failing.running.address) as client,
    ):
        with failing.runs("wait"):
            calls = [pool.submit(client.trace, MANY) for _ in range(2)]
            wait_for(prometheus, "ForwardQueueStalled")
        wait_for_end(prometheus, "ForwardQueueStalled")
        assert all(call.result().logits.shape == (128, 10) for call in calls)


def test_an_event_loop_that_stands_still_is_noticed() -> None:
    with (
        start_failing_server("--transport", "python") as failing,
        watched(failing.running) as prometheus,
        ThreadPoolExecutor(1) as pool,
        ForwardClient(failing.running.address) as client,
    ):
        with failing.runs("block"):
            call = pool.submit(client.predict, ONE)
            wait_for(prometheus, "ForwardEventLoopLag")
        wait_for_end(prometheus, "ForwardEventLoopLag")
        assert call.result().logits.shape == (1, 10)


def test_inverted_images_drift(test_pixels: np.ndarray) -> None:
    """The index is of the last images; it ends when they are as in the training again.

    30 minutes are 1.8 s here: this alert is of a gauge and needs no window.
    """
    turn = itertools.cycle(range(len(test_pixels)))
    options = ("--transport", "python", "--drift-window", "500")
    with start_server(*options) as server, watched(server, 10 * FACTOR) as prometheus:
        with repeated(lambda client: client.predict(1 - test_pixels[next(turn)]), server, 4):
            wait_for(prometheus, "ForwardDrift", feature="ink")
        with repeated(lambda client: client.predict(test_pixels[next(turn)]), server, 4):
            wait_until(lambda: not prometheus.fires("ForwardDrift"), ALERT_SECONDS)


def test_connections_over_the_limit_are_noticed(transport: str) -> None:
    if transport != "native":
        pytest.skip("grpcio tells nothing of its connections")
    with start_server("--max-connections", "1") as server, watched(server) as prometheus:
        with connect(grpc_port(server)):
            ended = threading.Event()

            def knock() -> None:
                while not ended.wait(0.05):
                    connect(grpc_port(server)).close()

            thread = threading.Thread(target=knock)
            thread.start()
            wait_for(prometheus, "ForwardConnectionsRefused")
            ended.set()
            thread.join()
        wait_for_end(prometheus, "ForwardConnectionsRefused")
