"""Every option of the server, and starts that can not be."""

import re
import socket
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import onnxruntime
import pytest
import structlog

from export.architecture import Device, Runtime
from export.bundle import Bundle
from export.errors import RuntimeUnavailableError
from export.runtimes import InterveningRunner, open_runner
from export.settings import read_settings
from forward.v1 import forward_pb2 as pb
from forward.v1 import forward_pb2_grpc
from forward_client import ForwardClient, ForwardError
from forward_client.messages import tensor_of
from server.config import ServerSettings
from server.engine.admission import AdmissionControl
from server.engine.model import load_verified
from server.errors import StartError
from server.limits import RequestLimits
from server.observability.logging import configure_logs
from server.observability.metrics import ServerMetrics
from server.repository.loader import GPU_DRIVER, INLINE_IMAGES, ModelLoader, receive_limit
from tests.support.bundles import REPOSITORY, publish_random_bundle, random_images
from tests.support.ports import free_port
from tests.support.servers import (
    RunningServer,
    metric,
    run_server_until_it_ends,
    server_command,
    start_server,
)
from tests.support.streams import stuck_answers


def test_limits_beyond_grpcs_stop_the_start(bundle: Bundle) -> None:
    model = load_verified(bundle, "onnx", "cpu", threads=1)
    assert receive_limit(model, RequestLimits(600_000, 1)) == 2**31 - 1
    with pytest.raises(StartError, match="--max-batch-images 700000"):
        receive_limit(model, RequestLimits(700_000, 1))


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


def test_as_many_comparisons_run_as_the_setting_says() -> None:
    images = tensor_of(np.zeros((1024, 28, 28), np.uint8))
    request = pb.CompareRequest(images=images, runtimes=["onnx", "numpy"])
    refused = threading.Event()

    def call_until_refused(stub: forward_pb2_grpc.ForwardServiceStub) -> str:
        while not refused.is_set():
            try:
                stub.Compare(request, timeout=60)
            except grpc.RpcError as error:
                refused.set()
                return str(error.details())
        return ""

    with (
        start_server("--max-comparisons", "2") as server,
        grpc.insecure_channel(server.address) as channel,
        ThreadPoolExecutor(3) as pool,
    ):
        stub = forward_pb2_grpc.ForwardServiceStub(channel)
        texts = set(pool.map(call_until_refused, [stub] * 3)) - {""}
    assert len(texts) > 0
    assert all("at most 2 comparisons run at a time" in text for text in texts)


def test_the_queue_has_the_length_of_the_setting() -> None:
    count = 8 * INLINE_IMAGES  # in a thread, and for long: others can come while they run
    images = np.zeros((count, 28, 28), np.uint8)
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

    limit = count + 88
    arguments = ("--max-batch-images", str(count), "--max-queue-images", str(limit))
    with start_server(*arguments) as server, ThreadPoolExecutor(4) as pool:
        callers = [pool.submit(call_until_refused, server) for _ in range(4)]
        ended.wait(20)  # two requests will soon be there at a time
        ended.set()
        refusals = {caller.result() for caller in callers} - {""}
    assert refusals
    assert all(f"holds {count} of at most {limit} images" in refusal for refusal in refusals)


@pytest.mark.one_transport
@pytest.mark.parametrize(("delay_ms", "least", "most"), [("0", 0, 0.2), ("400", 0.39, 5)])
def test_the_queue_delay_is_that_of_the_setting(delay_ms: str, least: float, most: float) -> None:
    """While answers to others have not left, somebody waits for company that does not come.

    Not in the native transport's lane, which sees what else comes, and waits for nothing.
    """
    images = random_images(1, (28, 28))
    with (
        start_server("--max-queue-delay-ms", delay_ms, "--transport", "python") as server,
        ForwardClient(server.address, timeout_seconds=60) as caller,
        stuck_answers(server),
    ):
        before = queue_seconds(server)
        for _ in range(3):
            caller.predict(images)
        assert least <= queue_seconds(server) - before < most


def queue_seconds(server: RunningServer) -> float:
    return metric(server, "forward_queue_seconds_sum", batcher="predict")


def test_a_full_trace_reaches_a_default_client(
    served: RunningServer,
) -> None:
    with grpc.insecure_channel(served.address) as channel:
        service = forward_pb2_grpc.ForwardServiceStub(channel)
        images = tensor_of(random_images(560, (28, 28)))
        answer = service.Trace(pb.TraceRequest(images=images, detail=pb.DETAIL_FULL))
    assert 0.95 * 2**22 < answer.ByteSize() <= 2**22


def test_a_far_too_large_request_is_refused(
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


@pytest.mark.one_transport
@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--model", "resnet"), "no model 'resnet' in models (models there: mnist)"),
        (("--model-version", "9999"), "no version 9999 of model 'mnist'"),
        (("--device", "cuda"), "CUDA"),
        (("--device", "cuda", "--runtime", "torchscript"), "finds no CUDA device"),
        (("--device", "cuda", "--runtime", "pt2"), "finds no CUDA device"),
        (("--host", "192.0.2.1"), "can't listen for gRPC on 192.0.2.1:"),
    ],
)
def test_an_impossible_start_ends_with_a_reason(arguments: tuple[str, ...], reason: str) -> None:
    ports = ("--grpc-port", "0", "--metrics-port", "0")
    done = run_server_until_it_ends(*ports, *arguments)
    assert done.returncode == 1
    assert f"can't start: {'' if 'CUDA' in reason else reason}" in done.stderr
    assert reason in done.stderr
    assert "Traceback" not in done.stderr


def test_auto_without_gpu_is_in_the_ready_line(served: RunningServer) -> None:
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers() or GPU_DRIVER.exists():
        pytest.skip("this machine has CUDA")
    assert (served.ready["device"], served.ready["device_setting"]) == ("cpu", "auto")
    # The calls of other tests that failed have lines, too.
    assert {entry["event"] for entry in served.log()} - {"call"} == {"self-check passed", "ready"}
    with start_server("--device", "cpu") as server:
        assert (server.ready["device"], server.ready["device_setting"]) == ("cpu", "cpu")


def test_a_fallback_to_cpu_is_logged_once(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this machine has CUDA")
    monkeypatch.setattr("server.repository.loader.GPU_DRIVER", tmp_path)  # it is there
    loader = ModelLoader(
        read_settings(ServerSettings, []),
        RequestLimits(8, 1 << 20),
        AdmissionControl(8),
        ServerMetrics(),
    )
    with structlog.testing.capture_logs() as log:
        for turn in range(3):  # as at each reload
            loaded = loader.load(bundle)
            loaded.instance.close()
            assert bool(loaded.model.no_gpu) == (turn == 0), "it was looked for again"
    reasons = [entry["reason"] for entry in log if "falls back" in entry["event"]]
    assert len(reasons) == 1
    assert "no CUDAExecutionProvider" in reasons[0]


def test_a_later_version_on_the_cpu_is_logged(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[Device] = []

    def open_there_once(
        bundle: Bundle, runtime: Runtime, device: Device, threads: int
    ) -> InterveningRunner:
        asked.append(device)
        if device == "cuda" and asked.count(device) == 2:
            raise RuntimeUnavailableError("its memory is full")
        return open_runner(bundle, runtime, "cpu", threads=threads)

    monkeypatch.setattr("server.engine.model.open_runner", open_there_once)
    monkeypatch.setattr("server.repository.loader.GPU_DRIVER", tmp_path)  # it is there
    loader = ModelLoader(
        read_settings(ServerSettings, []),
        RequestLimits(8, 1 << 20),
        AdmissionControl(8),
        ServerMetrics(),
    )
    with structlog.testing.capture_logs() as log:
        for _ in range(3):
            loader.load(bundle).instance.close()
    assert asked == ["cuda", "cuda", "cpu", "cuda"]
    reasons = [entry["reason"] for entry in log if "falls back" in entry["event"]]
    assert reasons == ["its memory is full"]


@pytest.mark.parametrize(
    ("port", "name"), [("grpc_port", "--grpc-port"), ("metrics_port", "--metrics-port")]
)
def test_a_port_in_use_stops_the_start(served: RunningServer, port: str, name: str) -> None:
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
    grpc_port, metrics_port = str(free_port()), str(free_port())
    arguments = ("--grpc-port", grpc_port, "--metrics-port", metrics_port, "--host", "127.0.0.2")
    with start_server(*arguments) as server:
        assert (str(server.ready["grpc_port"]), server.ready["host"]) == (grpc_port, "127.0.0.2")
        with ForwardClient(f"127.0.0.2:{grpc_port}") as caller:
            assert caller.health() == "SERVING"
        with socket.create_connection(("127.0.0.2", int(metrics_port))):
            pass
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", int(grpc_port)))


@pytest.mark.parametrize(
    ("level", "form", "line"),
    [
        ("info", "json", r'\{.*"event": "heard".*\}'),
        ("info", "console", r"[^{]*heard[^}]*"),
        ("info", "auto", r'\{.*"event": "heard".*\}'),  # standard error is no terminal here
        ("warning", "json", None),
    ],
)
def test_the_log_has_the_configured_level_and_format(
    level: str, form: str, line: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        configure_logs(level, form)
        structlog.get_logger().info("heard", x=1)
    finally:
        structlog.reset_defaults()
    written = capsys.readouterr().err
    assert re.fullmatch(line, written.strip()) if line else written == ""
    assert "\x1b" not in written, "colours are for terminals"


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_logged_failure_has_no_request_data(
    form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(secret: str) -> None:
        raise RuntimeError(f"the cause, of {len(secret)} letters")

    try:
        configure_logs("info", form)
        try:
            fail("a token " * 2)
        except RuntimeError:
            structlog.get_logger().exception("call failed")
    finally:
        structlog.reset_defaults()
    written = capsys.readouterr().err
    assert "the cause" in written
    assert "test_options.py" in written
    assert "a token a token" not in written


def test_the_settings_of_the_log_reach_it() -> None:
    port = str(free_port())
    quiet = ("--log-level", "error", "--log-format", "console", "--grpc-port", port)
    command = server_command([*quiet, "--metrics-port", "0", "--device", "cpu"])
    with subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.PIPE) as process:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            grpc.channel_ready_future(channel).result(60)
        process.terminate()
        _, written = process.communicate(timeout=30)
    assert (process.returncode, written) == (0, b"")


def test_the_runtime_has_the_configured_threads() -> None:
    def threads(*arguments: str) -> int:
        with start_server(*arguments) as server:
            return len(list(Path(f"/proc/{server.process.pid}/task").iterdir()))

    # Each of the two sessions has one thread less than that beside the caller's.
    assert threads("--threads", "21") >= threads() + 30
