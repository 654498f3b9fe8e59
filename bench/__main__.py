"""Measure the server's CPU time per request beside its floor: `python -m bench`.

The floor of a request is a bare grpc.aio echo of the same bytes plus ONNX
Runtime's forward of the same images in process on one thread. Both servers are
measured in turn, in one run; figures are medians of the rounds.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from rich.console import Console
from rich.table import Table

from client.connection import tensor_of
from export.bundle import find_bundle
from export.runners import Runner, open_runner
from forward.v1 import forward_pb2 as pb

MODELS_DIR = Path("models")
PREDICT, TRACE = "Predict", "Trace"
# Method, images of a request, callers that each wait for their answer.
CASES = ((PREDICT, 1, 1), (PREDICT, 1, 16), (PREDICT, 64, 4), (TRACE, 1, 1), (TRACE, 64, 4))


@dataclass
class Served:
    """A server process, and where to call it."""

    process: subprocess.Popen[str]
    port: int
    path: str

    def cpu_seconds(self) -> float:
        """Return the user and system time that the process has used."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def cpu_per_request(self, request: bytes, callers: int, requests: int) -> float:
        """Load the server and return its CPU microseconds for a request."""

        def call(count: int) -> None:
            with grpc.insecure_channel(f"127.0.0.1:{self.port}") as channel:
                method: Any = channel.unary_unary(self.path)
                for _ in range(count):
                    method(request, timeout=60)

        with ThreadPoolExecutor(callers) as pool:
            list(pool.map(call, [20] * callers))  # connections and first allocations
            before = self.cpu_seconds()
            list(pool.map(call, [requests // callers] * callers))
        return (self.cpu_seconds() - before) / (requests // callers * callers) * 1e6


@contextmanager
def running(arguments: list[str], path: str) -> Iterator[Served]:
    """Start a server module, which prints its port or logs it, and end it at the end."""
    command = [sys.executable, "-m", *arguments]
    with subprocess.Popen(
        command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        try:
            yield Served(process, _port(process), path)
        finally:
            process.terminate()


def _port(process: subprocess.Popen[str]) -> int:
    for line in process.stdout or ():
        entry = json.loads(line)  # a bare number is JSON too
        if isinstance(entry, int):
            return entry
        if entry.get("event") == "ready":
            return int(entry["grpc_port"])
    raise RuntimeError("the server ended before it was ready")


def forward_microseconds(runner: Runner, images: np.ndarray, seconds: float = 0.3) -> float:
    """Return the time of one forward pass in process."""
    runner.predict(images)
    runs, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        runner.predict(images)
        runs += 1
    return (time.perf_counter() - started) / runs * 1e6


def measure(case: tuple[str, int, int], rounds: int, requests: int) -> list[float]:
    """Return the medians of echo, forward and server, in microseconds, and the server's spread."""
    method, count, callers = case
    images = np.random.default_rng(0).integers(0, 256, (count, 28, 28), np.uint8)
    request = pb.PredictRequest(images=tensor_of(images)).SerializeToString()
    runner = open_runner(find_bundle(MODELS_DIR, "mnist", None), "onnx", "cpu")
    answer_bytes = count * 10 * 4 + (600 if method == TRACE else 40)
    ports = ["--grpc-port", "0", "--metrics-port", "0", "--log-format", "json", "--device", "cpu"]
    with ExitStack() as stack:
        echo = stack.enter_context(running(["bench.echo", str(answer_bytes)], "/bench.Echo/Echo"))
        ours = stack.enter_context(
            running(["server", *ports], f"/forward.v1.ForwardService/{method}")
        )
        samples = [
            (
                echo.cpu_per_request(request, callers, requests),
                forward_microseconds(runner, images / np.float32(255)),
                ours.cpu_per_request(request, callers, requests),
            )
            for _ in range(rounds)
        ]
    medians = [statistics.median(column) for column in zip(*samples, strict=True)]
    served = [sample[2] for sample in samples]
    return [*medians, max(served) - min(served)]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each case (%(default)s)")
    parser.add_argument(
        "--requests", type=int, default=2000, help="requests of each round (%(default)s)"
    )
    options = parser.parse_args()
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    table = Table(title=f"Server CPU µs per request, {datetime.now(UTC):%Y-%m-%d}, {machine}")
    for heading in ("method", "images", "callers"):
        table.add_column(heading)
    for heading in ("echo", "forward", "floor", "server", "spread", "server / floor"):
        table.add_column(heading, justify="right")
    for case in CASES:
        echo, forward, server, spread = measure(case, options.rounds, options.requests)
        figures = (f"{figure:.0f}" for figure in (echo, forward, echo + forward, server, spread))
        table.add_row(*map(str, case), *figures, f"{server / (echo + forward):.2f}")
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
