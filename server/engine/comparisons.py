"""Runs comparisons in threads of their own, a bounded number at a time."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from server.errors import DeadlineExceededError, TooManyComparisonsError

Result = TypeVar("Result")

MIN_RETRY_SECONDS = 0.1
FIRST_SECONDS = 1.0  # what a comparison is thought to take until one has ended

# It is given what tells it to stop.
Work = Callable[[Callable[[], bool]], Result]


class Comparisons:
    """Admits comparisons, of all versions together; one event loop's."""

    def __init__(self, max_running: int) -> None:
        self._max_running = max_running
        self._threads = ThreadPoolExecutor(max_running, thread_name_prefix="forward-compare")
        self._starts: list[float] = []  # of those that run
        self._seconds = FIRST_SECONDS  # of the last one

    @property
    def running(self) -> int:
        """How many run, those that were told to stop included."""
        return len(self._starts)

    async def run(self, work: Work[Result], deadline: float | None) -> Result:
        """Return the result of the work, done in a thread.

        The deadline is a time of time.monotonic; None: never. Cancelled, it tells the work to stop;
        its place is free when it has.

        Raises:
            TooManyComparisonsError: as many run as may.
            DeadlineExceededError: the deadline passed before it began.
        """
        now = time.monotonic()
        if self.running >= self._max_running:
            left = self._seconds - (now - min(self._starts))
            raise TooManyComparisonsError(self._max_running, max(left, MIN_RETRY_SECONDS))
        self._starts.append(now)
        loop, stopped = asyncio.get_running_loop(), threading.Event()

        def in_time() -> Result:
            if deadline is not None and time.monotonic() >= deadline:
                text = "the deadline passed before the comparison began; nothing was computed"
                raise DeadlineExceededError(text)
            return work(stopped.is_set)

        def end(_: object) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(self._end, now)

        running = self._threads.submit(in_time)
        running.add_done_callback(end)
        try:
            return await asyncio.wrap_future(running)
        finally:
            stopped.set()

    def _end(self, started: float) -> None:
        self._starts.remove(started)
        self._seconds = time.monotonic() - started
