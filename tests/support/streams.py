"""Streams that a test holds open, and readers that do not read."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import grpc

from forward.v1 import forward_pb2 as pb
from forward.v1.forward_pb2_grpc import ForwardServiceStub
from forward_client.messages import tensor_of
from tests.support.bundles import random_images
from tests.support.servers import RunningServer, metric

SECONDS = 60
# A client that takes in no more than 64 KiB before it is read from.
NARROW = [("grpc.http2.bdp_probe", 0)]


class Tap:
    """Requests that are counted as gRPC takes them; it goes on until it is closed."""

    def __init__(self, message: pb.PredictStreamRequest, most: int = 10**9) -> None:
        self._message = message
        self._most = most
        self._closed = threading.Event()
        self.taken = 0

    def __iter__(self) -> Iterator[pb.PredictStreamRequest]:
        while self.taken < self._most:
            self.taken += 1
            yield self._message
        self._closed.wait(SECONDS)

    def close(self) -> None:
        self._closed.set()


def settled(read: Callable[[], float]) -> float:
    """Return a value that has come to rest."""
    deadline, last, value = time.monotonic() + SECONDS, -1.0, 0.0
    while last != value or not value:
        assert time.monotonic() < deadline, f"it grows and grows: {value}"
        last = value
        time.sleep(0.5)
        value = read()
    return value


@contextmanager
def stuck_answers(server: RunningServer) -> Iterator[None]:
    """Have answers in flight that can't leave, for nobody reads them."""
    tap = Tap(pb.PredictStreamRequest(images=tensor_of(random_images(512, (28, 28)))))
    with grpc.insecure_channel(server.address, NARROW) as channel:
        stream = ForwardServiceStub(channel).PredictStream(iter(tap), timeout=SECONDS)
        settled(lambda: metric(server, "forward_images_total", batcher="predict"))
        yield
        stream.cancel()
        tap.close()
