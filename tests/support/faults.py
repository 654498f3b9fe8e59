"""What faulty clients do to a server: raw connections, and the look at what they leave behind."""

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import h2.config
import h2.connection
import h2.events
import psutil

from forward.v1 import forward_pb2 as pb
from forward.v1.forward_pb2_grpc import ForwardServiceStub
from forward_client.messages import tensor_of
from tests.support.bundles import REPOSITORY, random_images
from tests.support.servers import RunningServer, wait_until

ONE = random_images(1, (28, 28))
PROMPT_SECONDS = 5
SPARE_THREADS = 4  # gRPC keeps some of those that it started
SPARE_MEBIBYTES = 24
# Channels of the same address else share a connection.
ALONE = [("grpc.use_local_subchannel_pool", 1)]
PATH = "/forward.v1.ForwardService/"


def grpc_port(server: RunningServer) -> int:
    return int(server.ready["grpc_port"])


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=20)


def descriptors(server: RunningServer) -> int:
    return len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))


def threads(server: RunningServer) -> int:
    return len(list(Path(f"/proc/{server.process.pid}/task").iterdir()))


def mebibytes(server: RunningServer) -> float:
    return psutil.Process(server.process.pid).memory_info().rss / 2**20


def connections(server: RunningServer) -> set[int]:
    """Return the client's ports of the connections to a server's gRPC port."""
    return {
        each.raddr.port
        for each in psutil.Process(server.process.pid).net_connections("tcp")
        if each.status != psutil.CONN_LISTEN and each.laddr.port == grpc_port(server)
    }


def is_prompt(server: RunningServer) -> None:
    """Fail unless a call on a new connection is answered promptly."""
    request = pb.PredictRequest(images=tensor_of(ONE))
    with grpc.insecure_channel(server.address, ALONE) as channel:
        answer = ForwardServiceStub(channel).Predict(request, timeout=PROMPT_SECONDS)
    assert list(answer.logits.shape) == [1, 10]


@contextmanager
def unharmed(server: RunningServer) -> Iterator[None]:
    """Fail unless the server is, after what is done to it, as it was before."""
    is_prompt(server)  # what the first call of all makes is there to stay
    wait_until(lambda: not connections(server))
    before = descriptors(server), threads(server), mebibytes(server)
    yield
    is_prompt(server)
    wait_until(lambda: descriptors(server) <= before[0])
    wait_until(lambda: threads(server) <= before[1] + SPARE_THREADS)
    grown = mebibytes(server) - before[2]
    assert grown < SPARE_MEBIBYTES, f"memory grew by {grown:.1f} MiB"
    assert "Traceback" not in server.log_path.read_text()


class RawClient:
    """An HTTP/2 connection on which everything, and nothing, may be done."""

    def __init__(self, port: int) -> None:
        self.socket = connect(port)
        config = h2.config.H2Configuration(header_encoding="utf-8")
        self.http = h2.connection.H2Connection(config)
        self.http.initiate_connection()
        self.flush()

    def __enter__(self) -> "RawClient":
        return self

    def __exit__(self, *_error: object) -> None:
        self.socket.close()

    def flush(self) -> None:
        self.socket.sendall(self.http.data_to_send())

    def open_call(self, method: str, metadata: tuple[tuple[str, str], ...] = ()) -> int:
        """Send the headers of a call, of any service by its whole path; return its stream."""
        stream = self.http.get_next_available_stream_id()
        headers = (
            *((":method", "POST"), (":scheme", "http")),
            (":path", method if method.startswith("/") else PATH + method),
            *((":authority", "test"), ("content-type", "application/grpc"), ("te", "trailers")),
        )
        self.http.send_headers(stream, [*headers, *metadata])
        self.flush()
        return stream

    def events_until(
        self, kind: type[h2.events.Event], seconds: float = 20
    ) -> list[h2.events.Event]:
        """Return what comes, up to an event of that kind, the end of the connection or the time."""
        seen: list[h2.events.Event] = []
        deadline = time.monotonic() + seconds
        with contextlib.suppress(TimeoutError, ConnectionResetError):
            while not any(isinstance(event, kind) for event in seen):
                self.socket.settimeout(max(0.01, deadline - time.monotonic()))
                data = self.socket.recv(65536)
                if not data:
                    break
                seen += self.http.receive_data(data)
                with contextlib.suppress(BrokenPipeError):  # the server has closed its side
                    self.flush()
        return seen


CALLING = """
import sys
import numpy as np
from forward_client import ForwardClient
images = np.zeros((int(sys.argv[2]), 28, 28), np.float32)
with ForwardClient(sys.argv[1], timeout_seconds=60) as client:
    while True:
        client.predict(images)
        print("answered", flush=True)
        if sys.argv[3] == "once":
            sys.stdin.read()
"""


@contextmanager
def client_process(
    server: RunningServer, images: int, how: str
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a client that calls "once", and then stays connected, or "always"."""
    command = [sys.executable, "-c", CALLING, server.address, str(images), how]
    with subprocess.Popen(
        command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == b"answered\n"
            yield process
        finally:
            process.kill()
