"""A client of grpcio that calls at a steady rate, whatever comes back, and notes each outcome.

h2load knows nothing of gRPC's status. Run as `python -m bench.load.open_loop PORT IMAGES
RATE SECONDS`, in a process of its own; prints the outcomes as JSON.
"""

import asyncio
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any

import grpc

from bench.load.counters import SERVICE
from bench.load.requests import Request

TIMEOUT_SECONDS = 10
STUCK_SECONDS = 30


@dataclass(frozen=True)
class Outcome:
    """How a call ended, and when, by the clock of time.time."""

    started: float
    milliseconds: float
    status: str

    @property
    def ended(self) -> float:
        """When its answer was there."""
        return self.started + self.milliseconds / 1e3


class OpenLoopClient:
    """The process, from the outside."""

    def __init__(self, port: int, images: int, rate: int, seconds: float) -> None:
        arguments = [str(word) for word in (port, images, rate, seconds)]
        self._seconds = seconds
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.load.open_loop", *arguments],
            text=True,
            stdout=subprocess.PIPE,
        )

    def outcomes(self) -> list[Outcome]:
        """Wait for its end."""
        try:
            output, _ = self._process.communicate(timeout=self._seconds + STUCK_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise
        if self._process.returncode:
            raise RuntimeError("the open-loop client failed")
        return [Outcome(*each) for each in json.loads(output)]


async def sample(port: int, images: int, rate: float, seconds: float) -> list[Outcome]:
    """Call every so often, without waiting for the answers before."""
    message = Request("Predict", images).message()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call: Any = channel.unary_unary(f"/{SERVICE}/Predict")
        tasks = []
        first = time.monotonic()
        for turn in range(int(rate * seconds)):
            await asyncio.sleep(max(0, first + turn / rate - time.monotonic()))
            tasks.append(asyncio.create_task(_call(call, message)))
        return await asyncio.gather(*tasks)


async def _call(call: Any, message: bytes) -> Outcome:  # noqa: ANN401 (grpcio's type has no parameters here)
    started, clock = time.time(), time.perf_counter()
    status = "OK"
    try:
        await call(message, timeout=TIMEOUT_SECONDS)
    except grpc.aio.AioRpcError as error:
        status = error.code().name
    return Outcome(started, (time.perf_counter() - clock) * 1e3, status)


if __name__ == "__main__":
    port_, images_, rate_, seconds_ = sys.argv[1:]
    found = asyncio.run(sample(int(port_), int(images_), float(rate_), float(seconds_)))
    print(json.dumps([(each.started, each.milliseconds, each.status) for each in found]))
