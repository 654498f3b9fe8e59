"""What only the native transport has: its lane, its thread, its choice."""

import base64
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import chain, repeat
from pathlib import Path

import grpc
import h2.events
import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from google.rpc import error_details_pb2, status_pb2

from bench.load.h2load import frame as framed
from forward.v1 import forward_pb2 as pb
from forward.v1 import forward_pb2_grpc
from forward_client.messages import tensor_of
from server.transport.native.watchdog import EXIT_STATUS
from tests.support.bundles import REPOSITORY
from tests.support.certificates import Pair
from tests.support.faults import RawClient, grpc_port
from tests.support.http import request as http_request
from tests.support.servers import (
    RunningServer,
    metric,
    run_server_until_it_ends,
    scrape,
    start_server,
    wait_until,
)

pytest.importorskip("forward_native", reason="the native transport is not installed")
pytestmark = pytest.mark.one_transport

PREDICT = {"grpc_service": "forward.v1.ForwardService", "grpc_method": "Predict"}
LABELS = {**PREDICT, "grpc_type": "unary"}
FULL = "RESOURCE_EXHAUSTED"


@pytest.fixture(scope="module")
def served() -> Iterator[RunningServer]:
    with start_server("--transport", "native") as server:
        yield server


def stub(server: RunningServer) -> forward_pb2_grpc.ForwardServiceStub:
    return forward_pb2_grpc.ForwardServiceStub(grpc.insecure_channel(server.address))


def request(images: int) -> pb.PredictRequest:
    pixels = np.random.default_rng(0).integers(0, 256, (images, 28, 28), np.uint8)
    return pb.PredictRequest(images=tensor_of(pixels))


def test_ready_names_the_transport(served: RunningServer) -> None:
    assert served.ready["transport"] == "native"
    assert metric(served, "forward_transport_info", transport="native") == 1


def test_the_lane_answers_predict_and_counts_it_as_the_services_do(served: RunningServer) -> None:
    before = scrape(served)
    for images in (1, 3, 64):
        stub(served).Predict(request(images))
    after = scrape(served)

    def grown(name: str, **labels: str) -> float:
        key = (name, frozenset(labels.items()))
        return after[key] - before[key]

    assert grown("forward_lane_calls_total", **PREDICT) == 3
    assert grown("grpc_server_handled_total", **LABELS, grpc_code="OK") == 3
    assert grown("grpc_server_handling_seconds_count", **LABELS) == 3
    assert grown("forward_images_total", batcher="predict") == 68
    assert grown("forward_run_images_sum", batcher="predict") == 68
    assert grown("forward_run_images_count", batcher="predict") == 3
    assert grown("forward_run_seconds_count", batcher="predict") == 3
    assert grown("forward_queue_seconds_count", batcher="predict") == 3
    assert after["forward_queue_images", frozenset()] == 0


def test_what_the_lane_leaves_is_worded_by_the_service(served: RunningServer) -> None:
    before = metric(served, "forward_lane_calls_total", **PREDICT)
    with pytest.raises(grpc.RpcError) as raised:
        stub(served).Predict(pb.PredictRequest())
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert metric(served, "forward_lane_calls_total", **PREDICT) == before


@pytest.mark.parametrize("way", ["in the lane", "through Python"])
def test_a_stream_of_more_than_the_windows_take_goes_on(served: RunningServer, way: str) -> None:
    good = pb.PredictStreamRequest(images=request(16).images)  # 1,000 are 12.5 MB
    first = good if way == "in the lane" else pb.PredictStreamRequest()
    messages = chain([first], repeat(good, 999))
    responses = list(stub(served).PredictStream(messages, timeout=60))
    assert len(responses) == 1000
    assert all(len(each.logits.data) == 16 * 10 * 4 for each in responses[1:])


def test_python_is_chosen_when_it_is_asked_for() -> None:
    with start_server("--transport", "python") as server:
        stub(server).Predict(request(1))
        assert server.ready["transport"] == "python"
        assert metric(server, "forward_transport_info", transport="python") == 1
        assert metric(server, "forward_lane_on") == 0


WITHOUT_EXTENSION = """
import sys
sys.modules["forward_native"] = None  # as if it were not installed
from server.__main__ import main
sys.exit(main())
"""


def test_native_without_the_extension_stops_the_start_and_says_what_to_do() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_EXTENSION, "--transport", "native"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode != 0
    assert "the native transport is not installed" in done.stderr
    assert "make native" in done.stderr


# A server whose io thread is made to do something, 2 s after the start.
PROVOKED = """
import sys, threading
from server.transport.native import server, watchdog
watchdog.HUNG_SECONDS = 3
start = server.NativeServer.start
async def started(self):
    await start(self)
    threading.Timer(2, lambda: self._extension.{do}).start()
server.NativeServer.start = started
from server.__main__ import main
sys.exit(main())
"""
PORTS = ("--grpc-port", "0", "--metrics-port", "0", "--http-port", "off")


@pytest.mark.parametrize(
    ("do", "status", "line"),
    [
        ("panic()", -signal.SIGABRT, "forward-io failed and the process ends"),
        ("sleep(60)", EXIT_STATUS, "forward-io made no progress for 3 s, the process ends"),
    ],
)
def test_an_io_thread_that_fails_or_hangs_ends_the_process_with_a_line(
    do: str, status: int, line: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROVOKED.format(do=do), "--transport", "native", *PORTS],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    assert done.returncode == status
    assert f"forward-native: {line}" in done.stderr


def test_a_process_that_is_stopped_for_long_is_not_taken_for_hung(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROVOKED.format(do="sleep(0)"), "--transport", "native"]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([*command, *PORTS], cwd=REPOSITORY, stderr=log)
    try:
        wait_until(lambda: "ready" in (tmp_path / "log").read_text())
        process.send_signal(signal.SIGSTOP)
        time.sleep(4.5)
        process.send_signal(signal.SIGCONT)
        time.sleep(1.5)
    finally:
        process.terminate()
    assert process.wait(30) == 0


def test_an_unknown_transport_stops_the_start() -> None:
    done = run_server_until_it_ends("--transport", "rust")
    assert done.returncode != 0
    assert "transport" in done.stderr


def test_a_key_that_only_grpcio_takes_stops_the_start(tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP521R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    pair = Pair(tmp_path / "cert.pem", tmp_path / "key.pem")
    pair.certificate.write_bytes(certificate.public_bytes(Encoding.PEM))
    pair.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    pair.key.chmod(0o600)
    ports = ("--grpc-port", "0", "--metrics-port", "0", "--http-port", "off")
    done = run_server_until_it_ends("--transport", "native", *ports, *pair.arguments())
    assert done.returncode == 1
    assert "--tls-key: the native transport can't use it: expected an RSA key of" in done.stderr
    assert "Traceback" not in done.stderr


def refusal_of(client: RawClient, refused: int) -> tuple[dict[str, str], status_pb2.Status]:
    """Return the headers that end a call, and the status in them."""
    seen = client.events_until(h2.events.StreamEnded)
    (response,) = (event for event in seen if isinstance(event, h2.events.ResponseReceived))
    assert response.stream_id == refused
    headers = {str(key): str(value) for key, value in response.headers or ()}
    encoded = headers["grpc-status-details-bin"]
    return headers, status_pb2.Status.FromString(base64.b64decode(encoded + "=="))


def test_a_request_without_room_is_refused_by_its_begin() -> None:
    sizes = ("--max-batch-images", "8", "--max-queue-images", "8")
    with (
        start_server("--transport", "native", "--http-port", "0", *sizes) as server,
        RawClient(grpc_port(server)) as client,
    ):
        message = framed(request(4).SerializeToString())
        answered, refused = client.open_call("Predict"), client.open_call("Predict")
        client.http.send_data(answered, message[:1000])
        client.http.send_data(refused, framed(request(5).SerializeToString())[:40])
        client.flush()
        headers, status = refusal_of(client, refused)
        text = "the queue holds 4 of at most 8 images and has no room for 5 more; retry in 0.010 s"
        assert (headers["grpc-status"], headers["grpc-message"]) == ("8", text)
        retry = error_details_pb2.RetryInfo()
        assert status.details[0].Unpack(retry)
        assert (status.code, status.message, retry.retry_delay.nanos) == (8, text, 10_000_000)
        client.http.send_data(answered, message[1000:], end_stream=True)
        client.flush()
        seen = client.events_until(h2.events.StreamEnded)
        data = b"".join(e.data or b"" for e in seen if isinstance(e, h2.events.DataReceived))
        response = pb.PredictResponse.FromString(data[5:])
        assert response == stub(server).Predict(request(4))
        assert metric(server, "grpc_server_handled_total", **LABELS, grpc_code=FULL) == 1
        assert metric(server, "forward_queue_images") == 0
        (told,) = http_request(server.http_address, "/v2/models/mnist/stats").json()["model_stats"]
        assert told["inference_stats"]["fail"] == {"count": 1, "ns": 0}
