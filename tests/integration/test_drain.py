"""The end of a server: from a signal to its exit status, and what callers see of it."""

import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from bench.scenarios.drain import drain
from export.bundle import Bundle
from forward_client import ForwardClient, ForwardError
from server.lifecycle.shutdown import ARRIVAL_SECONDS
from tests.support.bundles import random_images
from tests.support.servers import RunningServer, start_held_server, start_server

ONE = random_images(1, (28, 28))


def watch_health(channel: grpc.Channel) -> Iterator[health_pb2.HealthCheckResponse]:
    watch: Iterator[health_pb2.HealthCheckResponse] = channel.unary_stream(
        "/grpc.health.v1.Health/Watch",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )(health_pb2.HealthCheckRequest())
    return watch


@contextmanager
def open_stream(server: RunningServer) -> Iterator[None]:
    """Hold a call open that only the client can end: a stream of server reflection."""
    done = threading.Event()

    def requests() -> Iterator[reflection_pb2.ServerReflectionRequest]:
        yield reflection_pb2.ServerReflectionRequest(list_services="")
        done.wait(60)

    with grpc.insecure_channel(server.address) as channel:
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)  # the stubs have no methods
        stream = stub.ServerReflectionInfo(requests())  # its end would end the call
        next(stream)
        yield
        done.set()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_an_idle_server_with_status_0(number: signal.Signals) -> None:
    with start_server() as server:
        started = time.monotonic()
        assert server.stop(number) == 0
        assert time.monotonic() - started < 5
        draining, refusing, stopped = server.log()[-3:]
        assert (draining["event"], draining["signal"]) == ("draining", number.name)
        assert (refusing["event"], refusing["running"]) == ("refusing calls", 0)
        assert (stopped["event"], stopped["refused"]) == ("stopped", 0)


@pytest.mark.parametrize("delay_seconds", [0, 0.5])
def test_a_drain_under_load_loses_no_call(delay_seconds: float) -> None:
    seen = drain(delay_seconds)
    assert seen.holds, seen
    assert sum(seen.answered.values()) > 100


def test_a_drain_finishes_calls_and_notifies_watchers(bundle: Bundle) -> None:
    with (
        start_held_server(bundle) as server,
        ForwardClient(server.address) as caller,
        grpc.insecure_channel(server.address) as channel,
        ThreadPoolExecutor(1) as pool,
    ):
        watch = watch_health(channel)
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        running = pool.submit(caller.predict, ONE)
        assert server.runner.started.acquire(timeout=10)
        drained = server.drain(30)
        assert [update.status for update in watch] == [health_pb2.HealthCheckResponse.NOT_SERVING]
        with ForwardClient(server.address) as late, pytest.raises(ForwardError) as refused:
            late.predict(ONE)
        assert refused.value.code == "UNAVAILABLE"
        assert "the server is shutting down" in str(refused.value)
        assert "no server answers" not in str(refused.value)
        assert not drained.done(), "the drain did not wait for the running call"
        server.runner.let_go.set()
        assert running.result(10).logits.shape == (1, 10)
        drained.result(10)


def test_a_call_during_a_blocked_loop_is_served(bundle: Bundle) -> None:
    """As on a machine that is short of processors, for longer than calls have to arrive."""
    with (
        start_held_server(bundle) as server,
        ForwardClient(server.address, timeout_seconds=30) as caller,
        ThreadPoolExecutor(1) as pool,
    ):
        server.runner.let_go.set()
        caller.predict(ONE)  # connected
        stands_still = threading.Event()

        def stand_still() -> None:
            stands_still.set()
            time.sleep(3 * ARRIVAL_SECONDS)

        drained = server.drain(30)
        time.sleep(ARRIVAL_SECONDS / 4)  # it has begun
        server.loop.call_soon_threadsafe(stand_still)
        assert stands_still.wait(30)
        on_its_way = pool.submit(caller.predict, ONE)
        assert on_its_way.result(30).logits.shape == (1, 10)
        drained.result(30)


def test_the_drain_timeout_ends_calls_that_do_not_finish(bundle: Bundle) -> None:
    with (
        start_held_server(bundle) as server,
        ForwardClient(server.address) as caller,
        ThreadPoolExecutor(1) as pool,
    ):
        running = pool.submit(caller.predict, ONE)
        assert server.runner.started.acquire(timeout=10)
        started = time.monotonic()
        server.drain(0.3).result(10)
        assert 0.3 <= time.monotonic() - started < 5
        with pytest.raises(ForwardError) as ended:
            running.result(10)
        assert ended.value.code in {"UNAVAILABLE", "CANCELLED"}


def test_an_endless_call_ends_at_the_drain_timeout() -> None:
    with start_server("--drain-timeout", "0.7") as server, open_stream(server):
        started = time.monotonic()
        assert server.stop() == 0
        assert 0.7 <= time.monotonic() - started < 5


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_the_process_at_once(number: signal.Signals) -> None:
    with start_server() as server, open_stream(server):
        server.process.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            server.process.wait(1)
        assert server.stop(number) == -number
        assert "Traceback" not in server.log_path.read_text()


def test_two_signals_at_a_time_end_the_process() -> None:
    with start_server() as server, open_stream(server):
        server.process.send_signal(signal.SIGSTOP)
        server.process.send_signal(signal.SIGTERM)
        server.process.send_signal(signal.SIGINT)
        server.process.send_signal(signal.SIGCONT)
        assert server.process.wait(5) in {-signal.SIGTERM, -signal.SIGINT}
        assert "Traceback" not in server.log_path.read_text()


HEALTH = health_pb2.HealthCheckResponse
DELAY = ("--drain-delay", "2")


def test_the_drain_delay_serves_calls_as_not_serving() -> None:
    with (
        start_server(*DELAY) as server,
        ForwardClient(server.address) as caller,
        grpc.insecure_channel(server.address) as channel,
    ):
        watch = watch_health(channel)
        assert next(watch).status == HEALTH.SERVING
        signalled = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        assert next(watch).status == HEALTH.NOT_SERVING
        for service in ("", "forward.v1.ForwardService"):
            assert caller.health(service) == "NOT_SERVING"
        with ForwardClient(server.address) as newcomer:
            assert newcomer.predict(ONE).logits.shape == (1, 10)
        assert time.monotonic() - signalled < 2, "too slow to have been within the delay"
        assert list(watch) == [], "a watch ends without another word"
        assert time.monotonic() - signalled >= 2, "the watch ended before the refusal"
        with pytest.raises(ForwardError) as refused:
            caller.predict(ONE)
        assert refused.value.code == "UNAVAILABLE"
        assert server.process.wait(30) == 0


def test_a_second_signal_ends_a_drain_at_once() -> None:
    with start_server("--drain-delay", "60") as server:
        server.process.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            server.process.wait(1)
        assert server.stop() == -signal.SIGTERM
        assert server.log()[-1]["event"] == "draining"


def test_a_drain_serves_calls_on_their_way() -> None:
    """Stopped, the server gets both, and the signal first."""
    with (
        start_server() as server,
        ForwardClient(server.address, timeout_seconds=30) as caller,
        ThreadPoolExecutor(1) as pool,
    ):
        caller.predict(ONE)  # connected
        server.process.send_signal(signal.SIGSTOP)
        server.process.send_signal(signal.SIGTERM)
        on_its_way = pool.submit(caller.predict, ONE)
        time.sleep(0.5)
        server.process.send_signal(signal.SIGCONT)
        assert on_its_way.result().logits.shape == (1, 10)
        assert server.process.wait(30) == 0
