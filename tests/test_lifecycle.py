"""Start, options, overload, failure and end of a server."""

import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import onnxruntime
import pytest
import structlog
import torch
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from client import ForwardClient, ForwardError
from client.connection import tensor_of
from export.bundle import Bundle
from forward.v1 import forward_pb2 as pb
from forward.v1 import forward_pb2_grpc
from server.logs import configure_logs
from tests.bundles import REPOSITORY, publish_random_bundle, random_images
from tests.servers import (
    RunningServer,
    run_server_until_it_ends,
    server_command,
    start_held_server,
    start_server,
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
    assert counts["OK"] > 50
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


def test_each_limit_is_the_one_that_was_set() -> None:
    arguments = ("--max-batch-images", "3", "--max-queue-images", "4")
    with (
        start_server(*arguments, FORWARD_MAX_RESPONSE_BYTES="9000") as server,
        ForwardClient(server.address) as caller,
    ):
        assert caller.model().max_batch_images == 3
        caller.predict(random_images(3, (28, 28)))
        with pytest.raises(ForwardError, match="expected 1 to 3 images, got 4; split"):
            caller.predict(random_images(4, (28, 28)))
        caller.trace(random_images(2, (28, 28)), {"flatten": "full"})
        with pytest.raises(ForwardError, match=r"needs up to 1\d{4} bytes, allowed are 9000"):
            caller.trace(random_images(3, (28, 28)), {"flatten": "full"})


def test_the_length_of_the_queue_is_the_one_that_was_set() -> None:
    images = np.zeros((512, 28, 28), np.uint8)
    ended = threading.Event()

    def call_until_refused(server: RunningServer) -> str:
        with ForwardClient(server.address) as caller:
            while not ended.is_set():
                try:
                    caller.predict(images)
                except ForwardError as error:
                    ended.set()
                    return str(error)
        return ""

    arguments = ("--max-batch-images", "512", "--max-queue-images", "600")
    with start_server(*arguments) as server, ThreadPoolExecutor(4) as pool:
        callers = [pool.submit(call_until_refused, server) for _ in range(4)]
        ended.wait(20)  # two requests will soon be there at a time
        ended.set()
        refusals = {caller.result() for caller in callers} - {""}
    assert refusals
    assert all("holds 512 of at most 600 images" in refusal for refusal in refusals)


def test_a_full_trace_that_fits_the_default_limit_reaches_a_stock_client(
    served: RunningServer,
) -> None:
    with grpc.insecure_channel(served.address) as channel:
        service = forward_pb2_grpc.ForwardServiceStub(channel)
        images = tensor_of(random_images(560, (28, 28)))
        answer = service.Trace(pb.TraceRequest(images=images, detail=pb.DETAIL_FULL))
    assert 0.95 * 2**22 < answer.ByteSize() <= 2**22


def test_a_request_that_is_far_too_large_is_refused_and_the_server_goes_on(
    client: ForwardClient,
) -> None:
    with pytest.raises(ForwardError) as refused:
        client.predict(np.zeros((20_000, 28, 28), np.uint8))
    assert refused.value.code == "RESOURCE_EXHAUSTED"
    assert client.health() == "SERVING"


def test_versions_are_chosen_by_the_settings(tiny: Bundle) -> None:
    models_dir = tiny.path.parent.parent
    publish_random_bundle(models_dir, "tiny")
    arguments = ("--models-dir", str(models_dir), "--model", "tiny")
    for pinned, expected in ((), 2), (("--model-version", "1"), 1):
        with start_server(*arguments, *pinned) as server, ForwardClient(server.address) as caller:
            assert caller.model().version == caller.predict(random_images(1, (3, 5))).model_version
            assert server.ready["version"] == expected


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--model", "resnet"), "no model 'resnet' in models (models there: mnist)"),
        (("--model-version", "9999"), "no version 9999 of model 'mnist'"),
        (("--device", "cuda"), "CUDA"),
        (("--device", "cuda", "--runtime", "torchscript"), "finds no CUDA device"),
        (("--host", "192.0.2.1"), "can't listen for gRPC on 192.0.2.1:"),
    ],
)
def test_a_start_that_can_not_be_is_ended_with_the_reason(
    arguments: tuple[str, ...], reason: str
) -> None:
    if "cuda" in arguments and torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    done = run_server_until_it_ends("--grpc-port", "0", "--metrics-port", "0", *arguments)
    assert done.returncode == 1
    assert f"can't start: {'' if 'CUDA' in reason else reason}" in done.stderr
    assert reason in done.stderr
    assert "Traceback" not in done.stderr


def test_auto_falls_back_to_the_cpu_with_a_line_in_the_log(served: RunningServer) -> None:
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this machine has CUDA")
    fallback = [e for e in served.log() if e["event"] == "device falls back to cpu"]
    assert "no CUDAExecutionProvider" in fallback[0]["reason"]
    with start_server("--device", "cpu") as server:
        assert not [e for e in server.log() if e["event"] == "device falls back to cpu"]


@pytest.mark.parametrize(
    ("port", "name"), [("grpc_port", "--grpc-port"), ("metrics_port", "--metrics-port")]
)
def test_a_port_that_is_taken_stops_the_start_by_its_setting(
    served: RunningServer, port: str, name: str
) -> None:
    ports = {"--grpc-port": "0", "--metrics-port": "0", name: str(served.ready[port])}
    done = run_server_until_it_ends(*(word for item in ports.items() for word in item))
    assert done.returncode == 1
    assert name in done.stderr
    assert str(served.ready[port]) in done.stderr


def test_onnx_runtime_keeps_no_telemetry(tmp_path: Path) -> None:
    """Where it may report, it leaves a device's identifier in the home and a session beside it."""
    with start_server(HOME=str(tmp_path), TMPDIR=str(tmp_path)) as server:
        assert server.stop() == 0
    assert list(tmp_path.iterdir()) == []


def test_ports_and_host_are_those_that_were_set() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as one,
        socket.create_server(("127.0.0.1", 0)) as two,
    ):
        grpc_port, metrics_port = (str(s.getsockname()[1]) for s in (one, two))
    arguments = ("--grpc-port", grpc_port, "--metrics-port", metrics_port, "--host", "::1")
    with start_server(*arguments) as server:
        assert (str(server.ready["grpc_port"]), server.ready["host"]) == (grpc_port, "::1")
        with ForwardClient(f"[::1]:{grpc_port}") as caller:
            assert caller.health() == "SERVING"
        with socket.create_connection(("::1", int(metrics_port))):
            pass
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", int(grpc_port)))


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


@pytest.mark.parametrize(
    ("level", "form", "line"),
    [
        ("info", "json", r'\{.*"event": "heard".*\}'),
        ("info", "console", r"[^{]*heard[^}]*"),
        ("info", "auto", r'\{.*"event": "heard".*\}'),  # standard error is no terminal here
        ("warning", "json", None),
    ],
)
def test_the_log_has_the_level_and_the_form_that_were_set(
    level: str, form: str, line: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        configure_logs(level, form)
        structlog.get_logger().info("heard", x=1)
    finally:
        structlog.reset_defaults()
    written = capsys.readouterr().err
    assert re.fullmatch(line, written.strip()) if line else written == ""


def test_the_settings_of_the_log_reach_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    quiet = ("--log-level", "error", "--log-format", "console", "--grpc-port", port)
    command = server_command([*quiet, "--metrics-port", "0", "--device", "cpu"])
    with subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.PIPE) as process:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            grpc.channel_ready_future(channel).result(60)
        process.terminate()
        _, written = process.communicate(timeout=30)
    assert (process.returncode, written) == (0, b"")
