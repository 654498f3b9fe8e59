"""Mosec: `python -m bench.peers.servers.mosec REQUESTS`.

REQUESTS is the maximum size of a batch; 1: no batching.
"""

import os
import sys

import numpy as np
from mosec import Server, Worker

from bench.peers.servers.common import Model, free_ports, images_of, joined


class DigitsWorker(Worker):
    """What both ways of computing have in common."""

    resp_mime_type = "application/octet-stream"

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()

    def deserialize(self, data: bytes) -> np.ndarray:
        """Return the images of a body."""
        return images_of(data)

    def serialize(self, data: np.ndarray) -> bytes:
        """Return the body of an answer."""
        return data.tobytes()


class Digits(DigitsWorker):
    """One request at a time."""

    def forward(self, data: np.ndarray) -> np.ndarray:
        """Return the logits of a request."""
        return self.model(data)


class BatchedDigits(DigitsWorker):
    """As many requests as have gathered."""

    def forward(self, data: list[np.ndarray]) -> list[np.ndarray]:
        """Return the logits of each request."""
        return joined(data, self.model)


def main() -> None:
    """Serve until the process is ended."""
    requests = int(sys.argv[1])
    (port,) = free_ports(1)
    os.environ |= {
        "MOSEC_ADDRESS": "127.0.0.1",
        "MOSEC_PORT": str(port),
        "MOSEC_LOG_LEVEL": "warning",
    }
    server = Server()
    if requests == 1:
        server.append_worker(Digits, route="/predict")
    else:
        server.append_worker(
            BatchedDigits, max_batch_size=requests, max_wait_time=1, route="/predict"
        )
    print(port, flush=True)
    server.run()


if __name__ == "__main__":
    main()
