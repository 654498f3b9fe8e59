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
4. One run at a time. While it goes on, requests wait. As soon as they fill a run, one group of
   them is taken and set behind it: its run begins when the one before ends, however busy the
   event loop is with newcomers.
5. Start. A group is taken when none runs and a) as many requests wait as are expected, or b)
   AMPLE_IMAGES, or as many as a run may have, or c) the oldest has waited for the delay limit.
   Now and then a group of several waits a moment longer than for (a), and for as long as more
   keep coming: a transport may hold back callers that nobody expects until they are let in.
   Such probes get rarer where they find nobody.
6. Group. In the order of arrival, up to `max_batch_images`; a request is never split, and the
   oldest always goes, alone if it is larger. Those that were cancelled before the run begins are
   left out of it; those whose deadline has passed end with DeadlineExceededError.
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

from server.errors import DeadlineExceededError, without_frames
from server.expectation import Expectation
from server.room import QueueRoom

Item = TypeVar("Item")
Result = TypeVar("Result")

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


class _Ran(NamedTuple, Generic[Item, Result]):
    """A group that was run, with an outcome for each request that was still wanted."""

    started: float
    wanted: Sequence[_Waiting[Item, Result]]
    given_up: Sequence[_Waiting[Item, Result]]
    outcomes: Sequence[Result | Exception]


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
        self._in_thread = 0  # groups: one runs, and one may be set behind it
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._expected = Expectation()

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
        self._expected.arrive()
        if self._is_lone(waiting):
            self._expected.renew()
            self._finish([waiting], waiting.arrived, self._outcomes([waiting]))
            return done
        self._waiting.append(waiting)
        self._waiting_images += images
        if not self._is_gathering():
            self._consider()
        return done

    def _is_lone(self, waiting: _Waiting[Item, Result]) -> bool:
        """Tell whether a newcomer is a group by itself: the short way for a lone caller."""
        return (
            self._expected.requests == 1
            and not self._waiting
            and not self._in_thread
            and waiting.deadline is None
            and waiting.images <= min(self._limits.inline_images, LARGE_IMAGES)
        )

    def _has_place(self) -> bool:
        """Tell whether a group could be taken: none runs, or one and the next would be full."""
        if self._in_thread != 1:
            return not self._in_thread
        return self._waiting_images >= self._limits.max_batch_images or not self._limits.merge

    def _is_gathering(self) -> bool:
        """Tell whether a newcomer changes nothing: others are still expected, the timer is set."""
        return (
            self._timer is not None
            and len(self._waiting) < self._expected.requests
            and not self._is_ample()
        )

    def _is_ample(self) -> bool:
        """Tell whether so many images wait that more company makes none of them cheaper."""
        return self._waiting_images >= min(self._limits.max_batch_images, AMPLE_IMAGES)

    def depart(self) -> None:
        """Tell that the answer to a request has left, whatever it was."""
        self._expected.depart()

    @property
    def is_idle(self) -> bool:
        """Tell whether no request waits, runs or has an answer that has not left."""
        return not (self._expected.in_flight or self._waiting or self._in_thread)

    def close(self) -> None:
        """Let the groups that were taken finish, end the thread, and let go of what it ran."""
        self._thread.shutdown(wait=True)
        del self._run  # a method of its owner: the two would wait for the garbage collector

    def _consider(self) -> None:
        """Take a group if its time has come, else when it will have."""
        if not self._waiting or not self._has_place():
            return
        loop = asyncio.get_running_loop()
        now = time.monotonic()
        until = self._taken_at(now)
        if until <= now:
            self._start(loop)
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
        if count < self._expected.requests:
            return due
        if count > 1 and self._expected.is_probe_due:
            newest = self._waiting[-1].arrived
            gap = (newest - came_first) / (count - 1)
            return min(due, newest + max(PATIENCE * gap, LEAST_PATIENCE_SECONDS))
        return now

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._stop_timer()
        self._expected.learn(len(self._waiting), is_ample=self._is_ample())
        group = self._take_group()
        if self._runs_inline(group):
            self._end(self._run_group(group))
        else:
            self._in_thread += 1
            running = loop.run_in_executor(self._thread, self._run_group, group)

            def end(ended: asyncio.Future[_Ran[Item, Result]]) -> None:
                self._in_thread -= 1
                self._end(ended.result())
                self._consider()

            running.add_done_callback(end)
        if self._waiting:
            loop.call_soon(self._consider)  # after those that have arrived meanwhile

    def _runs_inline(self, group: Sequence[_Waiting[Item, Result]]) -> bool:
        images = [waiting.images for waiting in group]
        is_small = sum(images) <= self._limits.inline_images and max(images) <= LARGE_IMAGES
        return is_small and not self._in_thread

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _take_group(self) -> list[_Waiting[Item, Result]]:
        group = [self._waiting.popleft()]
        images = group[0].images
        most = self._limits.max_batch_images if self._limits.merge else 0
        while self._waiting and images + self._waiting[0].images <= most:
            group.append(self._waiting.popleft())
            images += group[-1].images
        self._waiting_images -= images
        return group

    def _run_group(self, group: Sequence[_Waiting[Item, Result]]) -> _Ran[Item, Result]:
        """Run, in whatever thread, those of a group that nobody has given up by now."""
        now = time.monotonic()
        wanted, given_up = list[_Waiting[Item, Result]](), list[_Waiting[Item, Result]]()
        for waiting in group:
            is_late = waiting.deadline is not None and now >= waiting.deadline
            (given_up if is_late or waiting.done.done() else wanted).append(waiting)
        return _Ran(now, wanted, given_up, self._outcomes(wanted))

    def _outcomes(self, group: Sequence[_Waiting[Item, Result]]) -> list[Result | Exception]:
        """Run a group; return a result or an error for each request."""
        if not group:
            return []
        try:
            return list(self._run([waiting.item for waiting in group]))
        except Exception as error:  # noqa: BLE001 (whatever a runtime raises ends its requests)
            if len(group) == 1:
                return [error]
        return [outcome for waiting in group for outcome in self._outcomes([waiting])]

    def _end(self, ran: _Ran[Item, Result]) -> None:
        for waiting in ran.given_up:
            self._room.leave(waiting.images)
            if not waiting.done.done():
                seconds = f"{ran.started - waiting.arrived:.3f} s"
                text = f"the deadline passed after {seconds} in the queue; nothing was computed"
                waiting.done.set_exception(DeadlineExceededError(text))
        self._finish(ran.wanted, ran.started, ran.outcomes)

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
            if waiting.done.done():  # cancelled while it ran
                if isinstance(outcome, Exception):
                    without_frames(outcome)  # as whoever takes one does
            elif isinstance(outcome, StopIteration):  # which no future takes
                waiting.done.set_exception(RuntimeError(f"the run raised {outcome!r}"))
            elif isinstance(outcome, Exception):
                waiting.done.set_exception(outcome)
            else:
                waiting.done.set_result(Done(outcome, started - waiting.arrived))
