"""Dynamic batching: requests wait a moment for concurrent ones and share a run.

Independent of any transport and of what a run computes. The rules are a contract for any
other implementation; the tests take one as a parameter.

1. Admission. A request is admitted if its images and those that wait or run, over all batchers
   that share the admission control, are at most the limit; otherwise it fails with
   QueueFullError at once. Images are released when their run has ended.
2. In flight. A request is in flight from `submit` to `complete`, which the caller calls once for
   each admitted request, when its response has been sent.
3. Concurrency. The next batch is expected to hold as many requests as the peak concurrency since
   the previous batch was formed. A single sequential client is therefore never delayed. If a wait
   expires short of that, the requests in flight that are not in the batch count as stalled and
   leave the estimate.
4. One run at a time. Requests wait while it goes on. One full batch may be prefetched: its run
   begins when the previous one ends, however busy the event loop is with new requests.
5. Start. A batch is formed when none runs and a) as many requests wait as are expected, or b)
   AMPLE_IMAGES, or as many as a batch may have, or c) the oldest has waited for the delay limit.
   From time to time a batch of several waits a moment longer than for (a), and for as long as more
   requests keep coming: a transport may hold back concurrent requests until it is polled. Such
   probes become rarer where they find nothing.
6. Order. First come, first served, up to `max_batch_images`; a request is never split, and the
   oldest always runs, alone if it is larger. Requests cancelled before the run begins are left
   out; those whose deadline has passed fail with DeadlineExceededError and are not computed.
7. Results. Every request ends exactly once, with its own result or error. If a run of several
   fails, each is run alone, and only those that fail again fail.
8. Threads. Small requests, up to `inline_images` in a batch, run on the event loop, because the
   hand-over to a thread costs more. A larger batch, or one with a request of over LARGE_IMAGES,
   runs in a thread; other requests are admitted or refused meanwhile.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

from server.engine.admission import AdmissionControl
from server.engine.batched import BatchedRequest, BatchedResult, RanBatch
from server.engine.concurrency import ConcurrencyEstimator
from server.errors import DeadlineExceededError, without_frames
from server.observability.engine_metrics import BatcherName
from server.observability.records import CallRecord
from server.observability.runs import Run

Item = TypeVar("Item")
Result = TypeVar("Result")

AMPLE_IMAGES = 512  # in a batch: its weights, read once, cost each image little
LARGE_IMAGES = 64  # more of them in a request are never run on the event loop
PROBE_GAPS = 2  # a probe waits for so many mean times between arrivals
MIN_PROBE_SECONDS = 0.001  # an event loop's timers are no finer


@dataclass(frozen=True)
class BatchingConfig:
    """How a batcher forms batches."""

    max_batch_images: int
    max_queue_delay_seconds: float
    inline_images: int
    merge: bool = True  # False: every request runs alone


class DynamicBatcher(Generic[Item, Result]):
    """Batches requests and runs them; see the module for its rules.

    `run` takes the items of a batch and returns a result for each, in order;
    `observe_wait` is told the seconds that each request waited for its run; `name` is that of
    the batcher in the runs.
    All methods belong to one event loop; times are those of time.monotonic.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Item]], Sequence[Result]],
        admission: AdmissionControl,
        config: BatchingConfig,
        observe_wait: Callable[[float], None] = lambda _: None,
        name: BatcherName = "predict",
    ) -> None:
        self._run = run
        self._name: BatcherName = name
        self._observe_wait = observe_wait
        self._admission = admission
        self._config = config
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="forward-run")
        self._thread.submit(int).result()  # without a free thread the start fails, not a run
        self._waiting: deque[BatchedRequest[Item, Result]] = deque()
        self._waiting_images = 0
        self._in_thread = 0  # batches: one runs, and one may be prefetched
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._concurrency = ConcurrencyEstimator()

    def submit(
        self,
        item: Item,
        images: int,
        deadline: float | None = None,
        caller: CallRecord | None = None,
    ) -> asyncio.Future[BatchedResult[Result]]:
        """Take a request; its future may be cancelled.

        Raises:
            QueueFullError: the queue is full; the request is not in flight.
        """
        self._admission.acquire(images)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[BatchedResult[Result]] = loop.create_future()
        request = BatchedRequest(item, images, deadline, time.monotonic(), future, caller)
        self._concurrency.arrive()
        if self._can_run_at_once(request):
            self._concurrency.renew()
            outcomes = self._outcomes([request])
            self._finish([request], request.arrived, time.monotonic(), outcomes)
            return future
        request.note("queue")
        self._waiting.append(request)
        self._waiting_images += images
        if not self._is_gathering():
            self._schedule()
        return future

    def _can_run_at_once(self, request: BatchedRequest[Item, Result]) -> bool:
        """Tell whether a new request is a batch by itself: the fast path of a single client."""
        return (
            self._concurrency.requests == 1
            and not self._waiting
            and not self._in_thread
            and request.deadline is None
            and request.images <= min(self._config.inline_images, LARGE_IMAGES)
        )

    def _can_form(self) -> bool:
        """Tell whether a batch may be formed: none runs, or one and the next would be full."""
        if self._in_thread != 1:
            return not self._in_thread
        return self._waiting_images >= self._config.max_batch_images or not self._config.merge

    def _is_gathering(self) -> bool:
        """Tell whether the timer is set and more requests are expected than have arrived."""
        return (
            self._timer is not None
            and len(self._waiting) < self._concurrency.requests
            and not self._is_ample()
        )

    def _is_ample(self) -> bool:
        """Tell whether so many images wait that more of them would make none cheaper."""
        return self._waiting_images >= min(self._config.max_batch_images, AMPLE_IMAGES)

    def complete(self) -> None:
        """Report that the response to a request, whatever it was, has been sent."""
        self._concurrency.complete()

    def oldest_seconds(self) -> float:
        """Return how long the oldest request has waited for its run; any thread may ask."""
        try:
            return time.monotonic() - self._waiting[0].arrived
        except IndexError:
            return 0.0

    @property
    def is_idle(self) -> bool:
        """Tell whether no request waits, runs or has a response that has not been sent."""
        return not (self._concurrency.in_flight or self._waiting or self._in_thread)

    def close(self) -> None:
        """Let the batches that were formed finish, end the thread, and let go of `run`."""
        self._thread.shutdown(wait=True)
        del self._run  # a method of its owner: the two would wait for the garbage collector

    def _schedule(self) -> None:
        """Form a batch if its time has come, else set the timer for it."""
        if not self._waiting or not self._can_form():
            return
        loop = asyncio.get_running_loop()
        now = time.monotonic()
        start = self._batch_time(now)
        if start <= now:
            self._start(loop)
        elif self._timer is None or self._timer_at != start:
            self._stop_timer()
            self._timer, self._timer_at = loop.call_later(start - now, self._timer_expired), start

    def _timer_expired(self) -> None:
        self._timer = None  # clocks differ: it may be a moment too early, and is set again then
        self._schedule()

    def _batch_time(self, now: float) -> float:
        """Return when the batch is formed if no other request comes."""
        count, oldest = len(self._waiting), self._waiting[0].arrived
        if self._is_ample() or not self._config.merge:
            return now
        due = oldest + self._config.max_queue_delay_seconds
        if count < self._concurrency.requests:
            return due
        if count > 1 and self._concurrency.is_probe_due:
            newest = self._waiting[-1].arrived
            gap = (newest - oldest) / (count - 1)
            return min(due, newest + max(PROBE_GAPS * gap, MIN_PROBE_SECONDS))
        return now

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._stop_timer()
        self._concurrency.learn(len(self._waiting), is_ample=self._is_ample())
        batch = self._take_batch()
        if self._runs_inline(batch):
            self._end(self._run_batch(batch))
        else:
            self._in_thread += 1
            running = loop.run_in_executor(self._thread, self._run_batch, batch)

            def end(ended: asyncio.Future[RanBatch[Item, Result]]) -> None:
                self._in_thread -= 1
                self._end(ended.result())
                self._schedule()

            running.add_done_callback(end)
        if self._waiting:
            loop.call_soon(self._schedule)  # after those that have arrived meanwhile

    def _runs_inline(self, batch: Sequence[BatchedRequest[Item, Result]]) -> bool:
        images = [request.images for request in batch]
        is_small = sum(images) <= self._config.inline_images and max(images) <= LARGE_IMAGES
        return is_small and not self._in_thread

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _take_batch(self) -> list[BatchedRequest[Item, Result]]:
        batch = [self._waiting.popleft()]
        images = batch[0].images
        limit = self._config.max_batch_images if self._config.merge else 0
        while self._waiting and images + self._waiting[0].images <= limit:
            batch.append(self._waiting.popleft())
            images += batch[-1].images
        self._waiting_images -= images
        return batch

    def _run_batch(self, batch: Sequence[BatchedRequest[Item, Result]]) -> RanBatch[Item, Result]:
        """Run the requests of a batch that are still wanted, in the calling thread."""
        now = time.monotonic()
        wanted, dropped = list[BatchedRequest[Item, Result]](), list[BatchedRequest[Item, Result]]()
        for request in batch:
            is_late = request.deadline is not None and now >= request.deadline
            (dropped if is_late or request.future.done() else wanted).append(request)
            request.note("run")
        outcomes = self._outcomes(wanted)
        return RanBatch(now, time.monotonic(), wanted, outcomes, dropped)

    def _outcomes(self, batch: Sequence[BatchedRequest[Item, Result]]) -> list[Result | Exception]:
        """Run a batch; return a result or an error for each request."""
        if not batch:
            return []
        try:
            return list(self._run([request.item for request in batch]))
        except Exception as error:  # noqa: BLE001 (whatever a runtime raises ends its requests)
            if len(batch) == 1:
                return [error]
        return [outcome for request in batch for outcome in self._outcomes([request])]

    def _end(self, ran: RanBatch[Item, Result]) -> None:
        for request in ran.dropped:
            self._admission.release(request.images)
            if not request.future.done():
                seconds = f"{ran.started - request.arrived:.3f} s"
                text = f"the deadline passed after {seconds} in the queue; nothing was computed"
                request.future.set_exception(DeadlineExceededError(text))
        self._finish(ran.wanted, ran.started, ran.ended, ran.outcomes)

    def _finish(
        self,
        batch: Sequence[BatchedRequest[Item, Result]],
        started: float,
        ended: float,
        outcomes: Sequence[Result | Exception],
    ) -> None:
        seconds = time.monotonic() - started
        images = sum(request.images for request in batch)
        if images:
            self._admission.release(images, seconds)
        callers = [each.caller.span for each in batch if each.caller and each.caller.span]
        run = Run(self._name, started, ended - started, len(batch), images, callers)
        for request, outcome in zip(batch, outcomes, strict=True):
            self._observe_wait(started - request.arrived)
            if request.future.done():  # cancelled while it ran
                if isinstance(outcome, Exception):
                    without_frames(outcome)  # as one who awaits it would
            elif isinstance(outcome, StopIteration):  # no future accepts one
                request.future.set_exception(RuntimeError(f"the run raised {outcome!r}"))
            elif isinstance(outcome, Exception):
                request.future.set_exception(outcome)
            else:
                request.future.set_result(BatchedResult(outcome, started - request.arrived, run))
