"""The queue in front of the runtime: bounded, first come first served, off the event loop."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

from server.errors import DeadlineExceededError, QueueFullError

Result = TypeVar("Result")
LEAST_RETRY_SECONDS = 0.01
SMOOTHING = 0.1  # weight of the newest run in the mean time of an image


@dataclass(frozen=True)
class Run(Generic[Result]):
    """What a computation returned, with the seconds it waited and the seconds it took."""

    result: Result
    queue_seconds: float
    run_seconds: float


class Scheduler:
    """Runs one computation at a time in a thread of its own.

    - A request is taken if its images and those that wait or run together are at
      most `max_queue_images`, and refused at once otherwise.
    - Requests run in the order of their arrival.
    - One whose caller went away or whose deadline passed while it waited is
      dropped and never computed.
    - A failure is that of its own request alone.
    """

    def __init__(self, max_queue_images: int) -> None:
        self._max_queue_images = max_queue_images
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="forward-run")
        self._seconds_per_image = 0.0
        self.queued_images = 0

    async def run(
        self, images: int, compute: Callable[[], Result], deadline: float | None
    ) -> Run[Result]:
        """Compute when it is the request's turn; `deadline` is a time of time.monotonic.

        Raises:
            QueueFullError: there is no room for that many images.
            DeadlineExceededError: the deadline passed before the turn came.
        """
        if self.queued_images + images > self._max_queue_images:
            retry_seconds = self._seconds_per_image * self.queued_images
            raise QueueFullError(
                images,
                self.queued_images,
                self._max_queue_images,
                max(retry_seconds, LEAST_RETRY_SECONDS),
            )
        arrived = time.monotonic()

        def timed() -> Run[Result]:
            started = time.monotonic()
            if deadline is not None and started >= deadline:
                raise DeadlineExceededError(
                    f"the deadline passed after {started - arrived:.3f} s in the queue; "
                    "nothing was computed"
                )
            result = compute()
            return Run(result, started - arrived, time.monotonic() - started)

        loop = asyncio.get_running_loop()
        self.queued_images += images
        running = self._thread.submit(timed)
        # Not when the caller is gone, but when the thread is done with it.
        running.add_done_callback(lambda _: loop.call_soon_threadsafe(self._release, images))
        done = await asyncio.wrap_future(running)
        newest = done.run_seconds / images
        self._seconds_per_image += SMOOTHING * (newest - self._seconds_per_image)
        return done

    def _release(self, images: int) -> None:
        self.queued_images -= images

    def close(self) -> None:
        """Let the running computation finish and end the thread."""
        self._thread.shutdown(wait=True, cancel_futures=True)
