"""The rules of the batcher's contract, one by one, by the numbers of its docstring."""

import asyncio
import threading
import time
from collections.abc import Sequence

import pytest

from server.engine.admission import AdmissionControl
from server.engine.batched import BatchedResult
from server.errors import DeadlineExceededError, QueueFullError
from tests.support.batchers import (
    BATCHER_CASES,
    LONG,
    Batcher,
    BatcherCase,
    Runs,
    raise_concurrency,
    until,
)


@pytest.fixture(params=BATCHER_CASES, ids=str)
def case(request: pytest.FixtureRequest) -> BatcherCase:
    made: BatcherCase = request.param
    return made


async def is_pending(done: asyncio.Future[BatchedResult[object]], seconds: float = 0.1) -> bool:
    """Tell if a request still waits after some time."""
    await asyncio.wait([done], timeout=seconds)
    return not done.done()


# Rule 1: room


def test_a_full_queue_refuses_until_images_are_released(case: BatcherCase) -> None:
    runs, admission = Runs(), AdmissionControl(4)

    async def experiment() -> None:
        runs.let_go.clear()
        held = batcher.submit("held", 3)
        with pytest.raises(QueueFullError, match="holds 3 of at most 4 images") as full:
            batcher.submit("refused", 2)
        assert full.value.retry_seconds > 0
        fits = batcher.submit("fits", 1)
        runs.let_go.set()
        await asyncio.gather(held, fits)
        assert admission.images == 0
        assert (await batcher.submit("all", 4)).result == ("answer", "all")

    with case.batcher(runs, admission=admission, delay=0.01) as batcher:
        case.run(experiment)
    assert runs.batches == [["held"], ["fits"], ["all"]]
    assert admission.images == 0


def test_a_full_queue_says_when_to_retry(case: BatcherCase) -> None:
    runs, admission = Runs(seconds=0.02), AdmissionControl(10)

    async def experiment() -> None:
        for _ in range(30):
            await batcher.submit("slow", 1)
            batcher.complete()
        held = batcher.submit("held", 10)
        with pytest.raises(QueueFullError) as full:
            batcher.submit("refused", 1)
        await held
        assert 0.1 < full.value.retry_seconds < LONG

    with case.batcher(runs, admission=admission, batch=10) as batcher:
        case.run(experiment)


def test_schedulers_share_their_room(case: BatcherCase) -> None:
    runs, admission = Runs(), AdmissionControl(4)

    async def experiment() -> None:
        runs.let_go.clear()
        first = one.submit("one", 3)
        with pytest.raises(QueueFullError, match="holds 3 of at most 4"):
            two.submit("two", 2)
        second = two.submit("two", 1)
        assert admission.images == 4
        runs.let_go.set()
        await asyncio.gather(first, second)
        assert admission.images == 0

    with (
        case.batcher(runs, admission=admission) as one,
        case.batcher(runs, admission=admission) as two,
    ):
        case.run(experiment)


def test_images_count_until_their_run_has_ended(
    case: BatcherCase,
) -> None:
    runs, admission = Runs(), AdmissionControl(4)

    async def experiment() -> None:
        runs.let_go.clear()
        gone = batcher.submit("gone", 3)
        await until(lambda: runs.batches == [["gone"]])
        gone.cancel()
        await asyncio.sleep(0.05)
        assert admission.images == 3, "the thread still computes them"
        runs.let_go.set()
        await until(lambda: admission.images == 0)

    with case.batcher(runs, admission=admission) as batcher:
        case.run(experiment)


def test_a_refused_request_is_not_in_flight(case: BatcherCase) -> None:
    runs = Runs()

    async def experiment() -> None:
        for _ in range(50):
            with pytest.raises(QueueFullError):
                batcher.submit("refused", 5)
            await batcher.submit("single", 1)
            batcher.complete()

    with case.batcher(runs, admission=AdmissionControl(4)) as batcher:
        case.run(experiment)
    assert len(runs.batches) == 50


# Rules 2 and 3: who is in flight is expected


def test_a_single_caller_is_answered_before_submit_returns(case: BatcherCase) -> None:
    runs = Runs()

    async def experiment() -> None:
        for number in range(300):
            done = batcher.submit(number, 1)
            assert done.done(), "a timer or another turn of the loop would be a wait"
            assert done.result().result == ("answer", number)
            if number % 3:
                await asyncio.sleep(0)
            batcher.complete()

    with case.batcher(runs, inline=8) as batcher:
        case.run(experiment)
    assert len(runs.batches) == 300


def test_a_single_caller_never_waits_in_a_thread(case: BatcherCase) -> None:
    async def experiment() -> None:
        for number in range(300):
            await batcher.submit(number, 1)
            batcher.complete()

    with case.batcher(Runs()) as batcher:  # one wait would be too long for the experiment
        case.run(experiment)


def test_a_single_caller_waits_not_after_concurrent_ones(case: BatcherCase) -> None:
    async def experiment() -> int:
        await raise_concurrency(batcher, runs, 6)
        waits = []
        for number in range(100):
            waits.append((await batcher.submit(number, 1)).queue_seconds)
            batcher.complete()
        return sum(wait > 0.1 for wait in waits)

    runs = Runs()
    with case.batcher(runs, delay=0.2) as batcher:
        assert 1 <= case.run(experiment) <= 2, "the first could not know"


def test_concurrent_callers_comes_to_share_runs(case: BatcherCase) -> None:
    runs = Runs()

    async def call(batcher: Batcher, number: int) -> None:
        for turn in range(25):
            done = await batcher.submit((number, turn), 1)
            assert done.result == ("answer", (number, turn))
            await asyncio.sleep(0.001)  # the answer is on its way
            batcher.complete()

    async def experiment() -> None:
        await asyncio.gather(*(call(batcher, number) for number in range(32)))

    with case.batcher(runs, batch=64, delay=0.25, inline=64) as batcher:
        case.run(experiment)
    assert sum(map(len, runs.batches)) == 32 * 25
    assert len(runs.batches) < 32 * 25 / 8, "batches of more than 8 in the mean"


@pytest.mark.parametrize("inline", [0, 8])
def test_a_stuck_response_seldom_delays_a_single_caller(case: BatcherCase, inline: int) -> None:
    async def experiment() -> int:
        batcher.submit("stuck", 1)  # and never completes
        waits = []
        for number in range(100):
            waits.append((await batcher.submit(number, 1)).queue_seconds)
            batcher.complete()
        return sum(wait > 0.1 for wait in waits)

    with case.batcher(Runs(), delay=0.2, inline=inline) as batcher:
        assert 1 <= case.run(experiment) <= 5


# Rule 4: one run at a time


def test_requests_during_a_run_share_the_next(case: BatcherCase) -> None:
    runs = Runs()

    async def experiment() -> None:
        runs.let_go.clear()
        first = batcher.submit("first", 1)
        rest = [batcher.submit(number, 1) for number in range(5)]
        await asyncio.sleep(0.05)
        assert runs.batches == [["first"]]
        runs.let_go.set()
        await asyncio.gather(first, *rest)

    with case.batcher(runs) as batcher:
        case.run(experiment)
    assert runs.batches == [["first"], [0, 1, 2, 3, 4]]


def test_a_full_batch_is_prefetched_behind_a_run(
    case: BatcherCase,
) -> None:
    runs, begun = Runs(), list[list[object]]()

    def hold_the_event_loop() -> None:
        runs.let_go.set()
        time.sleep(0.2)
        begun.extend(runs.batches)

    async def experiment() -> None:
        runs.let_go.clear()
        first = batcher.submit("first", 1)
        rest = [batcher.submit(number, 4) for number in range(4)]
        await until(lambda: bool(runs.batches))
        hold_the_event_loop()
        await asyncio.gather(first, *rest)

    with case.batcher(runs) as batcher:
        case.run(experiment)
    assert begun == [["first"], [0, 1]]
    assert runs.batches == [["first"], [0, 1], [2, 3]]


# Rule 5: start


def test_a_batch_starts_when_the_expected_have_arrived(case: BatcherCase) -> None:
    runs = Runs()

    async def experiment() -> None:
        await raise_concurrency(batcher, runs, 3)
        waiting = [batcher.submit(number, 1) for number in range(2)]
        assert await is_pending(waiting[0])
        waiting.append(batcher.submit(2, 1))
        await asyncio.gather(*waiting)

    with case.batcher(runs) as batcher:
        case.run(experiment)
    assert runs.batches == [[0, 1, 2]]


def test_a_batch_starts_when_it_is_full(case: BatcherCase) -> None:
    runs = Runs()

    async def experiment() -> None:
        await raise_concurrency(batcher, runs, 5)
        small = batcher.submit("small", 3)
        assert await is_pending(small)
        large = batcher.submit("large", 5)
        await asyncio.gather(small, large)

    with case.batcher(runs, batch=8) as batcher:
        case.run(experiment)
    assert runs.batches == [["small", "large"]]


def test_a_batch_starts_after_the_delay(case: BatcherCase) -> None:
    runs = Runs()

    async def experiment() -> None:
        await raise_concurrency(batcher, runs, 5)
        first = batcher.submit("first", 1)
        await asyncio.sleep(0.1)
        second = batcher.submit("second", 1)
        waited = [(await done).queue_seconds for done in (first, second)]
        assert 0.249 <= waited[0] < 2
        assert waited[1] < waited[0] - 0.05

    with case.batcher(runs, delay=0.25) as batcher:
        case.run(experiment)
    assert runs.batches == [["first", "second"]]


def test_without_a_delay_nobody_waits_for_others(case: BatcherCase) -> None:
    async def experiment() -> None:
        await raise_concurrency(batcher, runs, 5, off_loop_images=9)
        for number in range(50):
            assert batcher.submit(number, 1).done()

    runs = Runs()
    with case.batcher(runs, delay=0, inline=8) as batcher:
        case.run(experiment)
    assert len(runs.batches) == 50


@pytest.mark.parametrize("delay", [0.0001, 0.0004, 0.0007, 0.001, 0.0014, 0.0026, 0.0051])
def test_an_early_timer_loses_no_batch(case: BatcherCase, delay: float) -> None:
    """Timers of uvloop are of 1 ms, and call back at once for less than half of it."""

    async def experiment() -> None:
        await raise_concurrency(batcher, runs, 3, off_loop_images=9)
        for turn in range(60):
            three = [batcher.submit((turn, each), 1) for each in range(3)]
            await asyncio.wait_for(asyncio.gather(*three), 10)
            batcher.complete()
            batcher.complete()  # the third is stuck, so that soon a fourth is expected, in vain
            await asyncio.sleep(turn % 7 * 0.0003)

    runs = Runs()
    with case.batcher(runs, delay=delay, inline=8) as batcher:
        case.run(experiment)
    assert any(len(batch) == 3 for batch in runs.batches), "the first has waited for the others"


# Rule 6: order


def test_a_batch_is_in_order_and_bounded(
    case: BatcherCase,
) -> None:
    runs = Runs()
    images = {"a": 3, "b": 5, "c": 1, "d": 8, "e": 20, "f": 4, "g": 4}

    async def experiment() -> None:
        runs.let_go.clear()
        held = batcher.submit("held", 1)
        waiting = [batcher.submit(name, count) for name, count in images.items()]
        runs.let_go.set()
        found = await asyncio.gather(held, *waiting)
        assert [done.result[1] for done in found] == ["held", *images]

    with case.batcher(runs, batch=8, delay=0.01) as batcher:
        case.run(experiment)
    assert runs.batches == [["held"], ["a", "b"], ["c"], ["d"], ["e"], ["f", "g"]]


@pytest.mark.parametrize("inline", [0, 8])
def test_without_merging_every_request_runs_alone(case: BatcherCase, inline: int) -> None:
    async def experiment() -> None:
        waiting = [batcher.submit(number, 1) for number in range(20)]
        await asyncio.gather(*waiting)

    runs = Runs()
    with case.batcher(runs, inline=inline, merge=False) as batcher:
        case.run(experiment)
    assert runs.batches == [[number] for number in range(20)]


@pytest.mark.parametrize("batch", [8, 16], ids=["set behind the run", "in the queue"])
def test_expired_and_cancelled_requests_are_not_computed(case: BatcherCase, batch: int) -> None:
    runs, admission = Runs(), AdmissionControl(100)

    async def experiment() -> None:
        runs.let_go.clear()
        held = batcher.submit("held", 1)
        late = batcher.submit("late", 2, time.monotonic() + 0.02)
        gone = batcher.submit("gone", 4)
        fine = batcher.submit("fine", 2, time.monotonic() + 60)
        await asyncio.sleep(0.05)
        gone.cancel()
        runs.let_go.set()
        await asyncio.gather(held, fine)
        with pytest.raises(DeadlineExceededError, match="nothing was computed"):
            await late
        assert admission.images == 0

    with case.batcher(runs, admission=admission, batch=batch) as batcher:
        case.run(experiment)
    assert runs.batches == [["held"], ["fine"]]


def test_a_queue_of_nothing_but_the_gone_empties(case: BatcherCase) -> None:
    runs, admission = Runs(), AdmissionControl(100)

    async def experiment() -> None:
        await raise_concurrency(batcher, runs, 5)
        gone = [batcher.submit(number, 1) for number in range(3)]
        for each in gone:
            each.cancel()
            batcher.complete()
        await until(lambda: admission.images == 0)
        assert (await batcher.submit("next", 1)).result == ("answer", "next")

    with case.batcher(runs, admission=admission, delay=0.05) as batcher:
        case.run(experiment)
    assert runs.batches == [["next"]]


# Rule 7: results


@pytest.mark.parametrize("inline", [0, 8])
def test_a_failure_is_that_of_its_own_request(case: BatcherCase, inline: int) -> None:
    runs = Runs(failing={1, 3})

    async def experiment() -> None:
        await raise_concurrency(batcher, runs, 4, off_loop_images=9)
        waiting = [batcher.submit(number, 2) for number in range(4)]
        found = await asyncio.gather(*waiting, return_exceptions=True)
        for number, outcome in enumerate(found):
            if number in runs.failing:
                assert isinstance(outcome, RuntimeError)
                assert outcome.args == (number,)
            else:
                assert isinstance(outcome, BatchedResult)
                assert outcome.result == ("answer", number)

    with case.batcher(runs, inline=inline) as batcher:
        case.run(experiment)
    assert runs.batches == [[0, 1, 2, 3], [0], [1], [2], [3]]


def test_a_passing_failure_fails_no_request(case: BatcherCase) -> None:
    runs = Runs()

    def run(items: Sequence[int]) -> list[object]:
        if len(items) > 1:
            raise MemoryError
        return runs(items)

    async def experiment() -> None:
        runs.let_go.clear()  # the first runs alone, the others together
        waiting = [batcher.submit(number, 1) for number in range(4)]
        runs.let_go.set()
        found = await asyncio.gather(*waiting)
        assert [done.result for done in found] == [("answer", number) for number in range(4)]

    with case.batcher(run) as batcher:
        case.run(experiment)


def test_the_reported_wait_is_that_for_the_run(case: BatcherCase) -> None:
    runs, told = Runs(seconds=0.1), list[float]()

    async def experiment() -> None:
        first, second = batcher.submit(1, 1), batcher.submit(2, 1)
        waits = [(await first).queue_seconds, (await second).queue_seconds]
        assert waits[0] < 0.05
        assert waits[1] >= 0.09
        assert told == waits

    with case.batcher(runs, observe_wait=told.append) as batcher:
        case.run(experiment)


# Rule 8: place


def test_only_small_batches_run_on_the_event_loop(case: BatcherCase) -> None:
    runs = Runs()

    async def experiment() -> None:
        for images in (1, 4, 5, 8, 20):
            await batcher.submit(images, images)
            batcher.complete()

    with case.batcher(runs, inline=4) as batcher:
        case.run(experiment)
    here = threading.current_thread().name
    assert [name == here for name in runs.threads] == [True, True, False, False, False]


def test_a_large_batch_does_not_block_the_loop(case: BatcherCase) -> None:
    runs = Runs()

    async def experiment() -> None:
        runs.let_go.clear()
        held = batcher.submit("held", 5)
        for _ in range(10):
            await asyncio.sleep(0.001)
        assert not held.done()
        runs.let_go.set()
        await held

    with case.batcher(runs, inline=4) as batcher:
        case.run(experiment)
