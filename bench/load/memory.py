"""Memory of a server over time, seen from the outside."""

import threading
from types import TracebackType
from typing import Self

import numpy as np

from bench.load.processes import Served

EVERY_SECONDS = 0.5


class MemorySampler:
    """Notes the resident memory of a server while it is open."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self.mebibytes: list[float] = []

    def __enter__(self) -> Self:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End."""
        self._closed.set()
        self._thread.join()

    def quarters(self) -> list[float]:
        """Return the median of each quarter of the time."""
        parts = np.array_split(np.array(self.mebibytes), 4)
        return [float(np.median(part)) for part in parts if len(part)]

    def _sample(self) -> None:
        while True:
            self.mebibytes.append(self._served.resident_mebibytes())
            if self._closed.wait(EVERY_SECONDS):
                return
