"""The scheduler: requests wait a moment for their neighbours and share a run.

Pure of any transport and of what a run computes. Its rules are a contract for
any other implementation; the tests take one as a parameter.

1. Room. A request is taken if its images and those that wait or run, over all schedulers that
   share the room, are at most the limit; else QueueFullError at once. One request never fails by
   its size alone in an empty room whose limit it fits. Images leave when their run has ended.
2. In flight. A request is in flight from `submit` to `depart`, which the caller calls once for
   each request that was taken, when the answer has left.
3. Expectation. A group is expected to have as many requests as were in flight at a time since
   the group before was taken. So a lone caller, whose next request comes after the answer to
   the last has left, is never expected to have company and never waits. Answers that had not
   left when a wait had been in vain are not counted: one that is stuck is no reason to wait.
4. One run at a time. While it goes on, requests wait.
5. Start. A group is taken when none runs and a) as many requests wait as are expected, or b)
   AMPLE_IMAGES, or as many as a run may have, or c) the oldest has waited for the delay limit.
   Now and then a group of several waits a moment longer than for (a), and for as long as more
   keep coming: a transport may hold back callers that nobody expects until they are let in.
   Such probes get rarer where they find nobody.
6. Group. In the order of arrival, up to `max_batch_images`; a request is never split, and the
   oldest always goes, alone if it is larger. Requests that were cancelled are dropped; those
   whose deadline has passed end with DeadlineExceededError; neither is computed.
7. Results. Every request ends exactly once, with its own result or its own error. If a run of
   several fails, each of them runs alone, and only those that fail again end with that failure.
8. Place. Small requests, up to `inline_images` in a group, run on the event loop: to hand them
   to a thread costs more. A larger group, or one with a request of over LARGE_IMAGES, runs in a
   thread; others are taken in or refused meanwhile.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from server.errors import DeadlineExceededError
from server.room import QueueRoom

Item = TypeVar("Item")
Result = TypeVar("Result")

MOST_GROUPS_BETWEEN_PROBES = 32
AMPLE_IMAGES = 512  # in a group: its weights, read once, cost each image little
LARGE_IMAGES = 64  # more of them in a request are never run on the event loop
PATIENCE = 2  # mean times between the arrivals of a group
LEAST_PATIENCE_SECONDS = 0.001  # an event loop's timers are no finer


class Done(NamedTuple, Generic[Result]):
    """A request's own result, and the seconds that it waited for its run."""

    result: Result
    queue_seconds: float


class _Waiting(NamedTuple, Generic[Item, Result]):
    item: Item
    images: int
    deadline: float | None
    arrived: float
    done: asyncio.Future[Done[Result]]


@dataclass(frozen=True)
class GroupLimits:
    """What a scheduler makes groups by."""

    max_batch_images: int
    max_queue_delay_seconds: float
    inline_images: int
    merge: bool = True  # False: every request runs alone


class Scheduler(Generic[Item, Result]):
    """Gathers requests into groups and runs them; see the module for its rules.

    `run` takes the items of a group and returns a result for each, in order;
    `observe_wait` is told the seconds that each request waited for its run.
    All methods belong to one event loop; times are those of time.monotonic.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Item]], Sequence[Result]],
        room: QueueRoom,
        limits: GroupLimits,
        observe_wait: Callable[[float], None] = lambda _: None,
    ) -> None:
        self._run = run
        self._observe_wait = observe_wait
        self._room = room
        self._limits = limits
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="forward-run")
        self._thread.submit(int).result()  # where threads are short, the start fails, not a run
        self._waiting: deque[_Waiting[Item, Result]] = deque()
        self._waiting_images = 0
        self._running = False  # in the thread
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._expected = 1
        self._stuck = 0  # answers that did not leave while a group was waited for
        self._groups_between_probes = self._groups_to_probe = 1
        self._most_in_flight = 0  # since the last group was taken
        self.in_flight = 0

    def submit(
        self, item: Item, images: int, deadline: float | None = None
    ) -> asyncio.Future[Done[Result]]:
        """Take a request; its future may be cancelled.

        Raises:
            QueueFullError: there is no room for its images; it is not in flight.
        """
        self._room.take(images)
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Done[Result]] = loop.create_future()
        waiting = _Waiting(item, images, deadline, time.monotonic(), done)
        self.in_flight += 1
        self._most_in_flight = max(self._most_in_flight, self.in_flight)
        if self._is_lone(waiting):
            self._expect()
            self._finish([waiting], waiting.arrived, self._outcomes([waiting]))
            return done
        self._waiting.append(waiting)
        self._waiting_images += images
        if not self._running and not self._is_gathering():
            self._consider()
        return done

    def _is_lone(self, waiting: _Waiting[Item, Result]) -> bool:
        """Tell whether a newcomer is a group by itself: the short way for a lone caller."""
        return (
            self._expected == 1
            and not self._waiting
            and not self._running
            and waiting.deadline is None
            and waiting.images <= min(self._limits.inline_images, LARGE_IMAGES)
        )

    def _is_gathering(self) -> bool:
        """Tell whether a newcomer changes nothing: others are still expected, the timer is set."""
        return (
            self._timer is not None and len(self._waiting) < self._expected and not self._is_ample()
        )

    def _is_ample(self) -> bool:
        """Tell whether so many images wait that more company makes none of them cheaper."""
        return self._waiting_images >= min(self._limits.max_batch_images, AMPLE_IMAGES)

    def depart(self) -> None:
        """Tell that the answer to a request has left, whatever it was."""
        self.in_flight -= 1
        self._stuck = min(self._stuck, self.in_flight)

    @property
    def is_idle(self) -> bool:
        """Tell whether no request waits, runs or has an answer that has not left."""
        return not (self.in_flight or self._waiting or self._running)

    def close(self) -> None:
        """Let the running group finish, end the thread, and let go of what it ran."""
        self._thread.shutdown(wait=True, cancel_futures=True)
        del self._run  # a method of its owner: the two would wait for the garbage collector

    def _consider(self) -> None:
        """Take a group if its time has come, else when it will have."""
        if self._running or not self._waiting:
            return
        loop = asyncio.get_running_loop()
        now = time.monotonic()
        until = self._taken_at(now)
        if until <= now:
            self._start(loop, now)
        elif self._timer is None or self._timer_at != until:
            self._stop_timer()
            self._timer, self._timer_at = loop.call_later(until - now, self._wake), until

    def _wake(self) -> None:
        self._timer = None  # clocks differ: it may be a moment too early, and is set again then
        self._consider()

    def _taken_at(self, now: float) -> float:
        """Return when the group shall be taken if nobody else comes."""
        count, came_first = len(self._waiting), self._waiting[0].arrived
        if self._is_ample() or not self._limits.merge:
            return now
        due = came_first + self._limits.max_queue_delay_seconds
        if count < self._expected:
            return due
        if count > 1 and self._groups_to_probe <= 0:
            newest = self._waiting[-1].arrived
            gap = (newest - came_first) / (count - 1)
            return min(due, newest + max(PATIENCE * gap, LEAST_PATIENCE_SECONDS))
        return now

    def _start(self, loop: asyncio.AbstractEventLoop, now: float) -> None:
        self._stop_timer()
        self._learn()
        group = self._take_group(now)
        if self._runs_inline(group):
            self._finish(group, now, self._outcomes(group))
        else:
            self._running = True
            running = loop.run_in_executor(self._thread, self._outcomes, group)

            def end(ended: asyncio.Future[list[Result | Exception]]) -> None:
                self._running = False
                self._finish(group, now, ended.result())
                self._consider()

            running.add_done_callback(end)
        if self._waiting and not self._running:
            loop.call_soon(self._consider)  # after those that have arrived meanwhile

    def _runs_inline(self, group: Sequence[_Waiting[Item, Result]]) -> bool:
        images = [waiting.images for waiting in group]
        return sum(images) <= self._limits.inline_images and max(images, default=0) <= LARGE_IMAGES

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _learn(self) -> None:
        """Set what is expected of the next group by those who came for this one."""
        came = len(self._waiting)
        if came < self._expected and not self._is_ample():
            self._stuck = max(0, self.in_flight - came)  # the wait was in vain
        elif self._groups_to_probe <= 0 and came > 1:
            found_more = came > self._expected
            between = 1 if found_more else 2 * self._groups_between_probes
            self._groups_between_probes = min(between, MOST_GROUPS_BETWEEN_PROBES)
            self._groups_to_probe = self._groups_between_probes
        self._groups_to_probe -= 1
        self._expect()

    def _expect(self) -> None:
        self._expected = max(1, self._most_in_flight - self._stuck)
        self._most_in_flight = self.in_flight

    def _take_group(self, now: float) -> list[_Waiting[Item, Result]]:
        group, images = list[_Waiting[Item, Result]](), 0
        while self._waiting:
            waiting = self._waiting[0]
            is_full = images + waiting.images > self._limits.max_batch_images
            if group and (is_full or not self._limits.merge):
                break
            self._waiting.popleft()
            self._waiting_images -= waiting.images
            is_late = waiting.deadline is not None and now >= waiting.deadline
            if is_late or waiting.done.done():
                self._drop(waiting, now)
            else:
                group.append(waiting)
                images += waiting.images
        return group

    def _drop(self, waiting: _Waiting[Item, Result], now: float) -> None:
        """End a request that was cancelled or is late."""
        self._room.leave(waiting.images)
        if not waiting.done.done():
            seconds = f"{now - waiting.arrived:.3f} s"
            text = f"the deadline passed after {seconds} in the queue; nothing was computed"
            waiting.done.set_exception(DeadlineExceededError(text))

    def _outcomes(self, group: Sequence[_Waiting[Item, Result]]) -> list[Result | Exception]:
        """Run a group; return a result or an error for each request."""
        if not group:
            return []
        try:
            results = self._run([waiting.item for waiting in group])
        except Exception as error:  # noqa: BLE001 (whatever a runtime raises ends its requests)
            if len(group) == 1:
                return [error]
            return [outcome for waiting in group for outcome in self._outcomes([waiting])]
        return list(results)

    def _finish(
        self,
        group: Sequence[_Waiting[Item, Result]],
        started: float,
        outcomes: Sequence[Result | Exception],
    ) -> None:
        seconds = time.monotonic() - started
        images = sum(waiting.images for waiting in group)
        if images:
            self._room.leave(images, seconds)
        for waiting, outcome in zip(group, outcomes, strict=True):
            self._observe_wait(started - waiting.arrived)
            if waiting.done.done():
                continue  # cancelled while it ran
            if isinstance(outcome, StopIteration):  # which no future takes
                waiting.done.set_exception(RuntimeError(f"the run raised {outcome!r}"))
            elif isinstance(outcome, Exception):
                waiting.done.set_exception(outcome)
            else:
                waiting.done.set_result(Done(outcome, started - waiting.arrived))
