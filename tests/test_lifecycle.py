"""Load, overload, failure and end of a server."""

import asyncio
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

from client import ForwardClient, ForwardError
from client.connection import tensor_of
from export.bundle import Bundle
from forward.v1 import forward_pb2 as pb
from server.host import ModelHost, activate
from server.metrics import ServerMetrics
from server.models import load_model
from server.room import QueueRoom
from server.service import ForwardService, Limits
from server.trace import put_stage
from tests.bundles import random_images
from tests.servers import (
    BareCall,
    RunningServer,
    start_held_server,
    start_server,
    threaded_corridor,
)

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
        assert [entry["event"] for entry in server.log()][-2:] == ["draining", "stopped"]
        assert server.log()[-2]["signal"] == number.name


def test_a_drain_under_load_loses_no_call_and_ends_with_status_0() -> None:
    images = random_images(700, (28, 28))
    counts = {"OK": 0, "UNAVAILABLE": 0}
    lock = threading.Lock()

    def call_until_it_ends(server: RunningServer) -> None:
        with ForwardClient(server.address, timeout_seconds=30) as caller:
            while server.process.poll() is None:
                try:
                    answer = caller.predict(images)
                except ForwardError as error:
                    with lock:
                        counts[error.code] += 1  # any other code is a KeyError
                    time.sleep(0.01)
                    continue
                assert answer.logits.shape == (700, 10)
                with lock:
                    counts["OK"] += 1

    with start_server() as server, ThreadPoolExecutor(8) as pool:
        callers = [pool.submit(call_until_it_ends, server) for _ in range(8)]
        time.sleep(1)
        assert server.stop() == 0
        for caller in callers:
            caller.result()
    assert counts["OK"] > 10
    assert counts["UNAVAILABLE"] >= 8


def test_a_drain_lets_a_running_call_finish_and_tells_watchers(bundle: Bundle) -> None:
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


def test_a_trace_is_packed_where_it_ran_and_not_on_the_event_loop(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: set[str] = set()

    def watched(*arguments: Any) -> None:  # noqa: ANN401 (passed on)
        threads.add(threading.current_thread().name)
        put_stage(*arguments)

    monkeypatch.setattr("server.service.put_stage", watched)
    model = load_model(bundle.path.parent.parent, "mnist", None, "onnx", "cpu")
    corridor = threaded_corridor(model, QueueRoom(8), ServerMetrics(), 8)
    service = ForwardService(ModelHost(activate(corridor, 8)), Limits(8, 1 << 20))
    request = pb.TraceRequest(images=tensor_of(ONE))
    response = asyncio.run(service.trace(request, BareCall()))
    corridor.close()
    assert len(response.stages) == 6
    assert len(threads) == 1
    assert threads.pop().startswith("forward-run")


def test_a_full_queue_is_resource_exhausted_with_a_time_to_retry(bundle: Bundle) -> None:
    with (
        start_held_server(bundle, max_queue_images=8) as server,
        ForwardClient(server.address) as caller,
        ThreadPoolExecutor(1) as pool,
    ):
        running = pool.submit(caller.predict, random_images(6, (28, 28)))
        assert server.runner.started.acquire(timeout=10)
        with pytest.raises(ForwardError, match="holds 6 of at most 8 images") as refused:
            caller.predict(random_images(3, (28, 28)))
        assert refused.value.code == "RESOURCE_EXHAUSTED"
        assert refused.value.retry_seconds is not None
        assert refused.value.retry_seconds > 0
        server.runner.let_go.set()
        assert len(running.result(10).logits) == 6
        assert len(caller.predict(random_images(8, (28, 28))).logits) == 8


def test_a_call_whose_deadline_passes_in_the_queue_is_never_computed(bundle: Bundle) -> None:
    with (
        start_held_server(bundle) as server,
        ForwardClient(server.address) as patient,
        ForwardClient(server.address, timeout_seconds=0.2) as hasty,
        ThreadPoolExecutor(1) as pool,
    ):
        running = pool.submit(patient.predict, ONE)
        assert server.runner.started.acquire(timeout=10)
        with pytest.raises(ForwardError, match=r"no answer from .* within 0\.2 s") as late:
            hasty.predict(ONE)
        assert late.value.code == "DEADLINE_EXCEEDED"
        time.sleep(0.2)  # the caller's clock is ahead of the server's by the way of the call
        server.runner.let_go.set()
        running.result(10)
        patient.predict(ONE)
        assert server.runner.runs == 2, "the late call was computed"
        handled = server.metrics.registry.get_sample_value(
            "grpc_server_handled_total",
            {
                "grpc_service": "forward.v1.ForwardService",
                "grpc_method": "Predict",
                "grpc_type": "unary",
                "grpc_code": "DEADLINE_EXCEEDED",
            },
        )
        assert handled == 1


def test_an_unforeseen_failure_tells_the_caller_only_where_to_look(
    bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    with start_held_server(bundle) as server, ForwardClient(server.address) as caller:
        with pytest.raises(ForwardError) as failed:
            caller.trace(ONE)
        assert failed.value.code == "INTERNAL"
        assert "secret" not in str(failed.value)
        request_id = str(failed.value).split()[-1]
        server.runner.let_go.set()
        assert caller.predict(ONE).logits.shape == (1, 10), "the server must go on"
    logged = capsys.readouterr().out
    assert request_id in logged
    assert "the secret cause" in logged


def test_answers_do_not_cross_between_callers(served: RunningServer, client: ForwardClient) -> None:
    images = random_images(300, (28, 28), seed=5)
    expected = client.predict(images).logits

    def call(index: int) -> bytes:
        with ForwardClient(served.address, timeout_seconds=30) as caller:
            return b"".join(
                caller.predict(images[i]).logits.tobytes() for i in range(index, 300, 12)
            )

    with ThreadPoolExecutor(12) as pool:
        found = list(pool.map(call, range(12)))
    for index, logits in enumerate(found):
        assert logits == expected[index::12].tobytes()


def test_a_call_that_never_ends_is_cut_off_after_the_drain_timeout() -> None:
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
