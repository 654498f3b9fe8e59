"""Clients that mean harm to the native transport: it ends them, and serves everybody else."""

import resource
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress

import grpc
import psutil
import pytest

from bench.load.floods import (
    DATA,
    ENHANCE_YOUR_CALM,
    FLOODS,
    PREFACE,
    call_headers,
    goaway_of,
    http2_frame,
    opened,
    opened_connection,
    send_flood,
    unread_traces,
)
from export.bundle import Bundle
from forward.v1 import forward_pb2 as pb
from forward.v1.forward_pb2_grpc import ForwardServiceStub
from forward_client import ForwardClient
from forward_client.messages import tensor_of
from tests.support.certificates import Authority
from tests.support.faults import ALONE, ONE, connect, connections, grpc_port, is_prompt, unharmed
from tests.support.servers import (
    RunningServer,
    metric,
    start_held_server,
    start_server,
    wait_until,
)

pytest.importorskip("forward_native", reason="the native transport is not installed")
pytestmark = pytest.mark.one_transport

NATIVE = ("--transport", "native")
FRAMES = 60_000
ROUNDS, MAX_UNREAD_MEBIBYTES = 4, 130  # of responses that nobody reads, each round 48 MiB
# Why a flood ends, by its GOAWAY; h2 words those of its own limits.
TEXTS = {
    "pings": b"too_many_pings",
    "settings": b"too_many_settings",
    "resets": b"too_many_resets",
    "reset_traces": b"too_many_resets",
    "continuations": b"too_many_continuations",
    "long_continuations": b"too_many_continuations",
    "empty_data": b"too_many_data_frames",
    "window_updates": b"too_many_frames",
    "priorities": b"too_many_frames",
    "unknown_frames": b"too_many_frames",
}


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with start_server(*NATIVE) as running:
        assert running.ready["transport"] == "native"
        yield running


def is_idle(server: RunningServer) -> None:
    """Fail unless nothing runs or waits in the server, and it takes no CPU."""
    wait_until(lambda: not connections(server))
    wait_until(lambda: metric(server, "forward_queue_images") == 0)
    process = psutil.Process(server.process.pid)
    wait_until(lambda: process.cpu_percent(0.2) < 20)


@contextmanager
def others_served(server: RunningServer) -> Iterator[None]:
    """Fail unless another caller gets every response, in a moment, meanwhile."""
    ended = threading.Event()

    def call_on() -> list[float]:
        seconds: list[float] = []
        with ForwardClient(server.address, timeout_seconds=20) as caller:
            while not ended.is_set() or len(seconds) < 5:
                began = time.monotonic()
                assert caller.predict(ONE).logits.shape == (1, 10)
                seconds.append(time.monotonic() - began)
                time.sleep(0.005)
        return seconds

    with ThreadPoolExecutor(1) as pool:
        calling = pool.submit(call_on)
        try:
            yield
        finally:
            ended.set()
        assert max(calling.result()) < 5


@pytest.mark.parametrize("flood", FLOODS)
def test_a_flood_is_ended_and_told_why(server: RunningServer, flood: str) -> None:
    with unharmed(server), others_served(server):
        sent, received = send_flood(grpc_port(server), FLOODS[flood](), FRAMES)
        assert sent < FRAMES, "it was taken to the end"
        assert goaway_of(received) == (ENHANCE_YOUR_CALM, TEXTS[flood])
    is_idle(server)


def test_connections_without_a_preface_give_way(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.transport.native.options.HANDSHAKE_SECONDS", 1)
    with start_held_server(bundle) as server, ExitStack() as stack:
        port = int(server.address.split(":")[1])
        held = [stack.enter_context(connect(port)) for _ in range(50)]
        for each in held[:25]:
            each.sendall(PREFACE[:20])
        for each in held:
            with suppress(ConnectionResetError):
                while each.recv(4096):
                    pass


def test_unfinished_tls_handshakes_delay_nobody(tmp_path_factory: pytest.TempPathFactory) -> None:
    ours = Authority(tmp_path_factory.mktemp("tls") / "ours")
    hello = bytes.fromhex("16030100a5010000a10303")  # and 154 bytes that never come
    with start_server(*NATIVE, *ours.issue().arguments()) as server, ExitStack() as stack:
        port = grpc_port(server)
        for number in range(40):
            held = stack.enter_context(connect(port))
            if number % 2:
                held.sendall(hello)
        wait_until(lambda: len(connections(server)) == 40)
        with ForwardClient(f"localhost:{port}", tls=ours.tls(), timeout_seconds=20) as caller:
            for _ in range(20):
                assert caller.predict(ONE).logits.shape == (1, 10)


def test_connections_that_are_left_open_bound_memory() -> None:
    """Those over the limit are closed at once; who was connected before is served."""
    count = 400
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, count + 500)), hard))
    with start_server(*NATIVE, "--max-connections", "100") as server, unharmed(server):
        with ForwardClient(server.address, timeout_seconds=20) as caller, ExitStack() as stack:
            caller.predict(ONE)
            for _ in range(count):
                stack.enter_context(connect(grpc_port(server)))
            wait_until(lambda: len(connections(server)) <= 100)
            for _ in range(20):
                assert caller.predict(ONE).logits.shape == (1, 10)
        wait_until(lambda: not connections(server))
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("window", [0, 2**31 - 1], ids=["no window", "no reading"])
def test_a_client_that_never_reads_traces_bounds_memory(server: RunningServer, window: int) -> None:
    process = psutil.Process(server.process.pid)
    before = process.memory_info().rss
    with others_served(server):
        for _ in range(ROUNDS):
            ask_without_reading(server, window)
    grown = (process.memory_info().rss - before) / 2**20
    # Of one round it may all be there still, in the allocators; of four it would be 190 MiB.
    assert grown < MAX_UNREAD_MEBIBYTES, f"memory grew by {grown:.0f} MiB"
    is_idle(server)


def ask_without_reading(server: RunningServer, window: int) -> None:
    """Ask for 400 large responses with so large a window for each; read none."""
    with opened_connection(grpc_port(server), window) as slow:
        slow.settimeout(1)
        with suppress(TimeoutError):  # it takes no more
            for frames in unread_traces():
                slow.sendall(frames)
        is_prompt(server)
        wait_until(lambda: metric(server, "forward_queue_images") == 0)


def test_a_body_that_never_ends_is_ended_by_its_deadline(server: RunningServer) -> None:
    deadline = b"\0\x0cgrpc-timeout\x021S"
    with unharmed(server), opened_connection(grpc_port(server)) as endless:
        endless.sendall(opened(1, call_headers("Predict") + deadline))
        body = b"\0" + (1 << 20).to_bytes(4)
        with others_served(server):
            for at in range(500):
                endless.sendall(http2_frame(DATA, body[at : at + 1] or b"x", stream=1))
                time.sleep(0.003)
        endless.settimeout(0.2)
        received = b""
        with suppress(TimeoutError, ConnectionResetError):
            while data := endless.recv(65536):
                received += data
        assert b"Deadline Exceeded" in received or b"\x34" in received
    is_idle(server)


def test_a_client_that_cancels_much_is_not_cut_off(server: RunningServer) -> None:
    """Deadlines that pass together, and calls that are given up, are no flood."""
    request = pb.PredictRequest(images=tensor_of(ONE))
    with grpc.insecure_channel(server.address, ALONE) as channel:
        service = ForwardServiceStub(channel)
        service.Predict(request, timeout=20)
        for _ in range(3):
            for call in [service.Predict.future(request) for _ in range(300)]:
                call.cancel()
        assert list(service.Predict(request, timeout=20).logits.shape) == [1, 10]
        assert len(connections(server)) == 1, "it had to connect anew"
    is_prompt(server)
