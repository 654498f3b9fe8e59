"""Callers that check every answer: `python -m bench.load.callers PORT FOLDER CALLERS PLACE`.

Each sends its next request when its last was answered, until standard input ends.
`requests.npz` in the folder has the images and the logits of each variant of the model;
an answer that names version v must have those of variant v % variants, bit for bit.
Prints a CallerCounts as JSON, and writes when each call began and how long it took.
"""

import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from bench.load.counters import SERVICE
from forward.v1 import forward_pb2 as pb
from forward_client.messages import tensor_of

REQUESTS = "requests.npz"
TIMEOUT_SECONDS = 20


@dataclass
class CallerCounts:
    """What callers saw."""

    answered: int = 0
    wrong: int = 0  # answers whose logits are not those of the version that they name
    backwards: int = 0  # answers of an older version than the same caller's last
    failed: dict[str, int] = field(default_factory=Counter)  # by status
    versions: dict[str, int] = field(default_factory=Counter)

    def add(self, other: "CallerCounts") -> None:
        """Count another's in."""
        self.answered += other.answered
        self.wrong += other.wrong
        self.backwards += other.backwards
        self.failed = Counter(self.failed) + Counter(other.failed)
        self.versions = Counter(self.versions) + Counter(other.versions)


class Callers:
    """Some callers on one connection."""

    def __init__(self, folder: Path) -> None:
        with np.load(folder / REQUESTS) as arrays:
            batches = [arrays[name] for name in sorted(arrays) if name.startswith("images")]
            logits = [arrays[name] for name in sorted(arrays) if name.startswith("logits")]
        self._messages = [
            pb.PredictRequest(images=tensor_of(batch)).SerializeToString() for batch in batches
        ]
        # By variant and request.
        self._logits = [
            [part.tobytes() for part in of_variant] for of_variant in _nested(logits, len(batches))
        ]
        self._ended = False
        self.counts = CallerCounts()
        self.calls: list[tuple[float, float]] = []  # started, by time.monotonic; seconds

    def end(self) -> None:
        """Let every caller's current call be its last."""
        self._ended = True

    async def run(self, port: int, callers: int) -> None:
        """Call until the end."""
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            predict: Any = channel.unary_unary(
                f"/{SERVICE}/Predict", response_deserializer=pb.PredictResponse.FromString
            )
            await asyncio.gather(*(self._call_on(predict, n) for n in range(callers)))

    async def _call_on(
        self, predict: Callable[..., Awaitable[pb.PredictResponse]], turn: int
    ) -> None:
        newest = 0
        while not self._ended:
            turn += 1
            index = turn % len(self._messages)
            started = time.monotonic()
            try:
                answer = await predict(self._messages[index], timeout=TIMEOUT_SECONDS)
            except grpc.aio.AioRpcError as error:
                self.counts.failed[error.code().name] += 1
                continue
            self.calls.append((started, time.monotonic() - started))
            version = answer.model.version
            expected = self._logits[version % len(self._logits)][index]
            self.counts.answered += 1
            self.counts.wrong += answer.logits.data != expected
            self.counts.backwards += version < newest
            self.counts.versions[str(version)] += 1
            newest = version


def _nested(flat: list[np.ndarray], length: int) -> list[list[np.ndarray]]:
    return [flat[start : start + length] for start in range(0, len(flat), length)]


async def _main(port: int, folder: Path, count: int, place: int) -> None:
    callers = Callers(folder)
    loop = asyncio.get_running_loop()
    loop.add_reader(sys.stdin, callers.end)
    await callers.run(port, count)
    np.save(folder / f"calls-{place}.npy", np.array(callers.calls).reshape(-1, 2))
    print(json.dumps(vars(callers.counts)))


if __name__ == "__main__":
    port_, folder_, count_, place_ = sys.argv[1:]
    asyncio.run(_main(int(port_), Path(folder_), int(count_), int(place_)))
