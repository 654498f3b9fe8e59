"""Classify many batches over one stream: `python examples/stream.py [ADDRESS]`."""

import sys
from collections.abc import Iterator

import numpy as np

from forward_client import ForwardClient, ForwardError


def batches() -> Iterator[np.ndarray]:
    """Yield batches of random images, uint8 [64, 28, 28]."""
    random = np.random.default_rng(0)
    for _ in range(10):
        yield random.integers(0, 256, (64, 28, 28), np.uint8)


with ForwardClient(sys.argv[1] if len(sys.argv) > 1 else "localhost:8001") as client:
    for number, answer in enumerate(client.predict_stream(batches())):
        if isinstance(answer, ForwardError):
            print(f"batch {number}: {answer}")  # the others are answered all the same
        else:
            print(f"batch {number}: {np.bincount(answer.classes, minlength=10).tolist()}")
