"""Each alert fires in a real Prometheus when its fault is provoked on a real server, and ends.

The rules are those of deploy/prometheus/, quickened: every window, `for` and interval is a
hundredth, so that 5 minutes are 3 s. Thresholds are as they are. Faults that have nothing to do
with each other are provoked together on one server, for most of the time is that of the windows.
"""

import itertools
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import psutil
import pytest

from export.bundle import Bundle
from forward_client import ForwardClient, ForwardError, Prediction, Tls
from tests.support.bundles import near_its_bound, publish_copy, random_images
from tests.support.certificates import Authority
from tests.support.failing_runs import start_failing_server
from tests.support.faults import connect, grpc_port
from tests.support.ports import free_port
from tests.support.prometheus import RULES, Prometheus, quickened, start_prometheus
from tests.support.servers import RunningServer, metric, start_server, wait_until

pytestmark = pytest.mark.one_transport

FACTOR = 100
INTERVAL = "300ms"
ALERT_SECONDS = 60  # of a machine with much else to do
# Many are computed in a thread, one in the event loop.
ONE, MANY = random_images(1, (28, 28)), random_images(128, (28, 28))
QUEUE_AGE, FAILURES = "forward_queue_oldest_seconds", "forward_background_failures_total"
STARTED = 'process_start_time_seconds{job="forward"}'
LOG_THROUGH_CAT = ("bash", "-c", 'exec "$@" 2> >(exec cat >&2)', "bash")


@contextmanager
def watched(server: RunningServer, factor: int = FACTOR) -> Iterator[Prometheus]:
    """Watch a server by the quickened rules."""
    target = f"127.0.0.1:{server.ready['metrics_port']}"
    rules = [quickened(path.read_text(), factor) for path in RULES]
    with start_prometheus([target], rules=rules, interval=INTERVAL) as prometheus:
        prometheus.wait_for_scrape()
        yield prometheus


def wait_for(prometheus: Prometheus, *names: str, **labels: str) -> None:
    """Wait until each of these alerts fires."""
    wait_until(lambda: all(prometheus.fires(name, **labels) for name in names), ALERT_SECONDS)


def wait_for_end(prometheus: Prometheus, *names: str, **labels: str) -> None:
    """Wait until none of these alerts fires."""
    wait_until(lambda: not any(prometheus.fires(name, **labels) for name in names), ALERT_SECONDS)


@contextmanager
def repeated(
    work: Callable[[ForwardClient], object],
    server: RunningServer,
    callers: int = 1,
    tls: Tls | None = None,
) -> Iterator[None]:
    """Do something again and again, whatever comes of it, in a thread for each caller."""
    ended = threading.Event()

    def run() -> None:
        with ForwardClient(f"localhost:{grpc_port(server)}", timeout_seconds=20, tls=tls) as client:
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


def predict_one(client: ForwardClient) -> object:
    return client.predict(ONE)


def predict_many(client: ForwardClient) -> object:
    return client.predict(MANY)


def predict_what_is_wrong(client: ForwardClient) -> object:
    return client.predict(np.zeros((1, 5, 5), np.uint8))


def test_a_server_without_faults_fires_nothing() -> None:
    with start_server() as server, watched(server) as prometheus, repeated(predict_one, server):
        wait_until(lambda: bool(prometheus.query("job:forward_calls:rate5m > 0")))
        for _ in range(20):
            prometheus.wait_for_scrape()
        # On a machine with much else to do, calls and timers can be late in earnest.
        late = {"ForwardLatencyBudgetBurn", "ForwardEventLoopLag"}
        assert {each["alertname"] for each in prometheus.firing()} <= late


def test_a_full_queue_and_wrong_requests_are_told_apart_and_are_no_failures() -> None:
    with (
        start_server("--max-batch-images", "128", "--max-queue-images", "128") as server,
        watched(server) as prometheus,
    ):
        with repeated(predict_many, server, callers=8):
            wait_for(prometheus, "ForwardQueueFull")
            assert not prometheus.fires("ForwardRejecting")
            with repeated(predict_what_is_wrong, server, callers=4):
                wait_for(prometheus, "ForwardRejecting")
                assert not prometheus.fires("ForwardErrorBudgetBurn")
        wait_for_end(prometheus, "ForwardQueueFull", "ForwardRejecting")


def test_a_broken_runtime_spends_the_budgets_and_holds_up_the_calls() -> None:
    """Of the alerts on budgets, those of the short windows end; the others are of hours."""
    with (
        start_failing_server("--transport", "python") as failing,
        watched(failing.running) as prometheus,
        ThreadPoolExecutor(8) as pool,
        ForwardClient(failing.running.address, timeout_seconds=120) as client,
    ):
        server = failing.running
        with repeated(lambda each: each.trace(ONE), server), repeated(predict_many, server, 2):
            with failing.runs("fail"), failing.runs("slow"):
                for window in ("1h", "6h", "3d"):
                    wait_for(prometheus, "ForwardErrorBudgetBurn", window=window)
                    wait_for(prometheus, "ForwardLatencyBudgetBurn", window=window)
            wait_for_end(prometheus, "ForwardErrorBudgetBurn", window="1h")
            wait_for_end(prometheus, "ForwardLatencyBudgetBurn", window="1h")
        with failing.runs("wait"), failing.runs("block"):
            calls: list[Future[Prediction]] = []

            def one_more_waits() -> bool:
                calls.append(
                    pool.submit(client.predict, MANY)
                )  # those that come together share a run
                time.sleep(0.2)
                return metric(server, QUEUE_AGE, batcher="predict") > 0

            wait_until(one_more_waits)
            traced = pool.submit(client.trace, ONE)
            wait_for(prometheus, "ForwardQueueStalled", "ForwardEventLoopLag")
        wait_for_end(prometheus, "ForwardQueueStalled", "ForwardEventLoopLag")
        assert {len(call.result().logits) for call in calls} == {128}
        assert len(traced.result().logits) == 1


def test_files_that_are_wrong_and_a_log_that_is_not_read(bundle: Bundle, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "tls")
    pair = authority.issue(days=1)
    models = near_its_bound(bundle, tmp_path / "models").path.parent
    options = (*pair.arguments(), "--models-dir", str(models.parent), "--access-log", "1")
    with (
        start_failing_server(*options, prefix=LOG_THROUGH_CAT) as failing,
        watched(failing.running) as prometheus,
    ):
        server = failing.running

        def reload() -> None:
            server.process.send_signal(signal.SIGHUP)

        pair.key.write_text("no key")
        with failing.no_memory_to_list_folders():
            reload()
            wait_until(lambda: metric(server, FAILURES, task="reload") > 0)
        publish_copy(bundle, models, 2, told=1)
        reload()
        with (
            stopped(log_reader(server)),
            repeated(ForwardClient.model, server, 2, authority.tls()),
        ):
            wait_for(prometheus, "ForwardLogDropped", "ForwardBackgroundFailures")
            wait_for(prometheus, "ForwardReloadFailed", "ForwardSelfCheckMargin")
            wait_for(prometheus, "ForwardFilesStale", "ForwardCertificateExpires")
        shutil.rmtree(models / "2")
        publish_copy(bundle, models, 3, told=3)
        reload()
        authority.renew(pair, days=90)
        wait_for_end(prometheus, "ForwardReloadFailed", "ForwardSelfCheckMargin")
        wait_for_end(prometheus, "ForwardFilesStale", "ForwardCertificateExpires")
        wait_for_end(prometheus, "ForwardLogDropped", "ForwardBackgroundFailures")


def log_reader(server: RunningServer) -> psutil.Process:
    """Return the `cat` that a server's log goes through."""
    (reader,) = (each for each in psutil.Process(server.process.pid).children())
    return reader


@contextmanager
def stopped(process: psutil.Process) -> Iterator[None]:
    """Stop a process in the block, as it is for whoever waits for it."""
    process.suspend()
    try:
        yield
    finally:
        process.resume()


@contextmanager
def start_restarted_server() -> Iterator[RunningServer]:
    """Start a shell that starts a server again when it has ended, on the same port of metrics."""
    port = ("--metrics-port", str(free_port()))
    with start_server(*port, prefix=("sh", "-c", 'while :; do "$@"; done', "sh")) as server:
        try:
            yield server
        finally:
            shell = psutil.Process(server.process.pid)
            shell.suspend()  # it starts none meanwhile
            for child in shell.children():
                child.kill()


def test_a_server_that_is_killed_is_down_and_one_that_is_killed_again_restarts() -> None:
    """The windows are longer here: a start takes seconds, and three are to be in 15 minutes."""
    with start_restarted_server() as server, watched(server, FACTOR // 2) as prometheus:
        shell = psutil.Process(server.process.pid)

        def started() -> float:
            return max((each.value for each in prometheus.query(STARTED)), default=0)

        def kill() -> None:
            (process,) = shell.children()
            process.kill()

        def kill_the_next() -> None:
            before = started()
            kill()
            wait_until(lambda: started() > before, ALERT_SECONDS)

        with stopped(shell):
            kill()
            wait_for(prometheus, "ForwardDown")
        wait_for_end(prometheus, "ForwardDown")
        while not prometheus.fires("ForwardRestarting"):
            kill_the_next()
        wait_for(prometheus, "ForwardRestarting")
        wait_for_end(prometheus, "ForwardRestarting")


def test_inverted_images_drift(test_pixels: np.ndarray) -> None:
    """The index is of the last images; it ends when they are as in the training again.

    30 minutes are 1.8 s here: this alert is of a gauge and needs no window.
    """
    turn = itertools.cycle(range(len(test_pixels)))
    with (
        start_server("--drift-window", "500") as server,
        watched(server, 10 * FACTOR) as prometheus,
    ):
        with repeated(lambda client: client.predict(1 - test_pixels[next(turn)]), server, 2):
            wait_for(prometheus, "ForwardDrift", feature="ink")
        with repeated(lambda client: client.predict(test_pixels[next(turn)]), server, 2):
            wait_for_end(prometheus, "ForwardDrift")


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
