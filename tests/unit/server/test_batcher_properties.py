"""Whatever arrives, is cancelled, expires or fails: every request ends once, with its own end."""

import asyncio
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.engine.admission import AdmissionControl
from server.engine.batched import BatchedResult
from server.errors import DeadlineExceededError, QueueFullError
from tests.support.batchers import BATCHER_CASES, Batcher, BatcherCase, until

BATCH = 8
ROOM = 30
CLOCK = 1e-9  # seconds by which sums and differences of the same times may differ


class PoisonError(Exception):
    """A request's own failure: it fails every run that it is in."""


class PassingError(Exception):
    """A failure of a run that another run of the same requests need not have."""


@dataclass(frozen=True)
class Plan:
    """One request of an experiment; times in seconds."""

    pause: float  # before it arrives
    images: int
    deadline: float | None  # from its arrival
    cancelled: float | None  # after its arrival
    is_poison: bool
    completes: float | None  # after its end; None: never


@dataclass(frozen=True)
class Experiment:
    """What arrives, and at what batcher."""

    plans: list[Plan]
    delay: float
    inline: int
    merge: bool
    run_seconds: float
    passing_failures: frozenset[int]  # numbers of runs


@dataclass
class Request:
    """What became of a plan."""

    number: int
    plan: Plan
    arrived: float
    deadline: float | None
    done: asyncio.Future[BatchedResult[list[tuple[int, int]]]] | None = None  # None: refused
    cancelled_at: float | None = None
    ends: int = 0

    def rows(self) -> list[tuple[int, int]]:
        return [(self.number, row) for row in range(self.plan.images)]


@dataclass
class Watch:
    """Runs requests and writes down which were run together."""

    experiment: Experiment
    batches: list[list[Request]] = field(default_factory=list)
    failures: list[Exception | None] = field(default_factory=list)  # of each batch's run
    order: list[Request] = field(default_factory=list)  # of the requests' first runs
    waits: list[float] = field(default_factory=list)
    loop_thread: int = field(default_factory=threading.get_ident)
    running: int = 0

    def run(self, requests: Sequence[Request]) -> list[list[tuple[int, int]]]:
        self.running += 1
        assert self.running == 1, "one run at a time"
        seen = {request.number for request in self.order}
        self.order += [request for request in requests if request.number not in seen]
        failure = self._failure(requests)
        self.batches.append(list(requests))
        self.failures.append(failure)
        if threading.get_ident() == self.loop_thread:
            images = sum(request.plan.images for request in requests)
            assert images <= self.experiment.inline
            assert not any(request.done and request.done.done() for request in requests)
        else:
            time.sleep(self.experiment.run_seconds)
        self.running -= 1
        if failure:
            raise failure
        return [request.rows() for request in requests]

    def _failure(self, requests: Sequence[Request]) -> Exception | None:
        if len(self.batches) in self.experiment.passing_failures:
            return PassingError()
        poison = [request.number for request in requests if request.plan.is_poison]
        return PoisonError(poison) if poison else None


def milliseconds(most: float) -> st.SearchStrategy[float]:
    return st.floats(0, most).map(lambda value: value / 1000)


SELDOM = st.sampled_from([False] * 6 + [True])
PLANS = st.builds(
    Plan,
    pause=st.just(0.0) | milliseconds(4),
    images=st.integers(1, 5) | st.integers(1, BATCH + 5),
    deadline=st.none() | st.sampled_from([-1.0, 0.0, 60.0]) | milliseconds(5),
    cancelled=st.none() | st.none() | milliseconds(5),
    is_poison=SELDOM,
    completes=st.just(0.0) | st.just(0.0) | milliseconds(4) | st.none(),
)
EXPERIMENTS = st.builds(
    Experiment,
    plans=st.lists(PLANS, min_size=1, max_size=40),
    delay=st.sampled_from([0.0, 0.0003, 0.001, 0.004]),
    inline=st.sampled_from([0, 3, BATCH, 100]),
    merge=st.sampled_from([True, True, False]),
    run_seconds=milliseconds(2),
    passing_failures=st.frozensets(st.integers(0, 30), max_size=6),
)


@dataclass
class Callers:
    """Sends the requests of an experiment, each as its plan says."""

    batcher: Batcher
    admission: AdmissionControl
    requests: list[Request] = field(default_factory=list)

    async def send(self, plans: Sequence[Plan]) -> None:
        async with asyncio.TaskGroup() as tasks:
            for number, plan in enumerate(plans):
                if plan.pause:
                    await asyncio.sleep(plan.pause)
                request = self._submit(number, plan)
                if request.done is not None:
                    tasks.create_task(self._follow(request, request.done))

    def _submit(self, number: int, plan: Plan) -> Request:
        arrived = time.monotonic()
        deadline = None if plan.deadline is None else arrived + plan.deadline
        request = Request(number, plan, arrived, deadline)
        self.requests.append(request)
        self._check_room()
        taken = self.admission.images
        fits = taken + plan.images <= ROOM
        try:
            request.done = self.batcher.submit(request, plan.images, deadline)
        except QueueFullError:
            assert not fits
            assert self.admission.images == taken
            return request
        assert fits
        request.done.add_done_callback(lambda _: self._count_end(request))
        return request

    async def _follow(
        self, request: Request, done: asyncio.Future[BatchedResult[list[tuple[int, int]]]]
    ) -> None:
        await asyncio.wait([done], timeout=request.plan.cancelled)
        if request.plan.cancelled is not None and done.cancel():
            request.cancelled_at = time.monotonic()
        await asyncio.wait([done])
        if request.plan.completes is not None:
            await asyncio.sleep(request.plan.completes)
            self.batcher.complete()

    def _count_end(self, request: Request) -> None:
        request.ends += 1

    def _check_room(self) -> None:
        waiting = [each for each in self.requests if each.done and not each.done.done()]
        assert sum(each.plan.images for each in waiting) <= self.admission.images <= ROOM


def perform(case: BatcherCase, experiment: Experiment) -> tuple[list[Request], Watch]:
    watch, admission = Watch(experiment), AdmissionControl(ROOM)
    with case.batcher(
        watch.run,
        admission=admission,
        batch=BATCH,
        delay=experiment.delay,
        inline=experiment.inline,
        merge=experiment.merge,
        observe_wait=watch.waits.append,
    ) as batcher:
        callers = Callers(batcher, admission)

        async def send() -> None:
            await callers.send(experiment.plans)
            await until(lambda: admission.images == 0)
            await asyncio.sleep(0)

        case.run(send)
    assert admission.images == 0
    return callers.requests, watch


def check_end(request: Request, watch: Watch) -> None:
    """The request ended once, in a way that its plan and the runs account for."""
    own = [
        failure
        for batch, failure in zip(watch.batches, watch.failures, strict=True)
        if batch == [request]
    ]
    computed = any(request is other for other in watch.order)
    if request.done is None:
        assert not computed
        return
    assert request.done.done()
    assert request.ends == 1
    if request.done.cancelled():
        assert request.cancelled_at is not None
        return
    error = request.done.exception()
    if isinstance(error, DeadlineExceededError):
        assert request.deadline is not None
        assert not computed
    elif error is not None:
        assert error is own[-1], "a failure of a run that it shared with nobody"
    else:
        assert request.done.result().result == request.rows()
        assert not request.plan.is_poison


def check_groups(experiment: Experiment, watch: Watch) -> None:
    numbers = [request.number for request in watch.order]
    assert numbers == sorted(numbers), "in the order of arrival"
    for batch in watch.batches:
        assert all(one.number < next_one.number for one, next_one in pairwise(batch))
        assert len(batch) == 1 or (
            experiment.merge and sum(request.plan.images for request in batch) <= BATCH
        )


def check_nobody_was_computed_in_vain(watch: Watch) -> None:
    """Whoever was cancelled or late when the batch was taken is in no run."""
    assert len(watch.waits) == len(watch.order)
    for request, wait in zip(watch.order, watch.waits, strict=True):
        taken = request.arrived + wait
        assert wait >= 0
        assert request.deadline is None or taken < request.deadline + CLOCK
        # At the same reading of the clock either may have been first.
        assert request.cancelled_at is None or taken <= request.cancelled_at + CLOCK
        if request.done and not request.done.cancelled():
            with suppress(PoisonError, PassingError):
                assert abs(request.done.result().queue_seconds - wait) < CLOCK


@pytest.mark.parametrize("case", BATCHER_CASES, ids=str)
@settings(max_examples=100)
@given(experiment=EXPERIMENTS)
def test_every_request_ends_once_with_its_own_result(
    case: BatcherCase, experiment: Experiment
) -> None:
    requests, watch = perform(case, experiment)
    assert len(requests) == len(experiment.plans)
    for request in requests:
        check_end(request, watch)
    check_groups(experiment, watch)
    check_nobody_was_computed_in_vain(watch)
