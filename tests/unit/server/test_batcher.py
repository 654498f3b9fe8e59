"""The rules of the scheduler's contract, one by one, by the numbers of its docstring."""

import asyncio
import threading
import time
from collections.abc import Sequence

import pytest

from server.engine.admission import AdmissionControl
from server.engine.batcher import BatchedResult
from server.errors import DeadlineExceededError, QueueFullError
from tests.support.schedulers import (
    LABORATORIES,
    LONG,
    Gathering,
    Laboratory,
    Runs,
    expect_company,
    until,
)


@pytest.fixture(params=LABORATORIES, ids=str)
def lab(request: pytest.FixtureRequest) -> Laboratory:
    made: Laboratory = request.param
    return made


async def is_pending(done: asyncio.Future[BatchedResult[object]], seconds: float = 0.1) -> bool:
    """Tell if a request still waits after some time."""
    await asyncio.wait([done], timeout=seconds)
    return not done.done()


# Rule 1: room


def test_a_full_queue_refuses_at_once_and_has_room_again_later(lab: Laboratory) -> None:
    runs, admission = Runs(), AdmissionControl(4)

    async def experiment() -> None:
        runs.let_go.clear()
        held = scheduler.submit("held", 3)
        with pytest.raises(QueueFullError, match="holds 3 of at most 4 images") as full:
            scheduler.submit("refused", 2)
        assert full.value.retry_seconds > 0
        fits = scheduler.submit("fits", 1)
        runs.let_go.set()
        await asyncio.gather(held, fits)
        assert admission.images == 0
        assert (await scheduler.submit("all", 4)).result == ("answer", "all")

    with lab.scheduler(runs, admission=admission, delay=0.01) as scheduler:
        lab.run(experiment)
    assert runs.groups == [["held"], ["fits"], ["all"]]
    assert admission.images == 0


def test_a_full_queue_says_when_it_will_have_room(lab: Laboratory) -> None:
    runs, admission = Runs(seconds=0.02), AdmissionControl(10)

    async def experiment() -> None:
        for _ in range(30):
            await scheduler.submit("slow", 1)
            scheduler.complete()
        held = scheduler.submit("held", 10)
        with pytest.raises(QueueFullError) as full:
            scheduler.submit("refused", 1)
        await held
        assert 0.1 < full.value.retry_seconds < LONG

    with lab.scheduler(runs, admission=admission, batch=10) as scheduler:
        lab.run(experiment)


def test_schedulers_share_their_room(lab: Laboratory) -> None:
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
        lab.scheduler(runs, admission=admission) as one,
        lab.scheduler(runs, admission=admission) as two,
    ):
        lab.run(experiment)


def test_images_take_room_until_their_run_has_ended_though_the_caller_is_gone(
    lab: Laboratory,
) -> None:
    runs, admission = Runs(), AdmissionControl(4)

    async def experiment() -> None:
        runs.let_go.clear()
        gone = scheduler.submit("gone", 3)
        await until(lambda: runs.groups == [["gone"]])
        gone.cancel()
        await asyncio.sleep(0.05)
        assert admission.images == 3, "the thread still computes them"
        runs.let_go.set()
        await until(lambda: admission.images == 0)

    with lab.scheduler(runs, admission=admission) as scheduler:
        lab.run(experiment)


def test_a_refused_request_is_not_in_flight_and_nobody_waits_for_it(lab: Laboratory) -> None:
    runs = Runs()

    async def experiment() -> None:
        for _ in range(50):
            with pytest.raises(QueueFullError):
                scheduler.submit("refused", 5)
            await scheduler.submit("lone", 1)
            scheduler.complete()

    with lab.scheduler(runs, admission=AdmissionControl(4)) as scheduler:
        lab.run(experiment)
    assert len(runs.groups) == 50


# Rules 2 and 3: who is in flight is expected


def test_a_lone_caller_is_answered_before_submit_returns(lab: Laboratory) -> None:
    runs = Runs()

    async def experiment() -> None:
        for number in range(300):
            done = scheduler.submit(number, 1)
            assert done.done(), "a timer or another turn of the loop would be a wait"
            assert done.result().result == ("answer", number)
            if number % 3:
                await asyncio.sleep(0)
            scheduler.complete()

    with lab.scheduler(runs, inline=8) as scheduler:
        lab.run(experiment)
    assert len(runs.groups) == 300


def test_a_lone_caller_never_waits_for_the_delay_in_a_thread_either(lab: Laboratory) -> None:
    async def experiment() -> None:
        for number in range(300):
            await scheduler.submit(number, 1)
            scheduler.complete()

    with lab.scheduler(Runs()) as scheduler:  # one wait would be too long for the experiment
        lab.run(experiment)


def test_a_lone_caller_is_alone_again_after_a_crowd_has_left(lab: Laboratory) -> None:
    async def experiment() -> int:
        await expect_company(scheduler, runs, 6)
        waits = []
        for number in range(100):
            waits.append((await scheduler.submit(number, 1)).queue_seconds)
            scheduler.complete()
        return sum(wait > 0.1 for wait in waits)

    runs = Runs()
    with lab.scheduler(runs, delay=0.2) as scheduler:
        assert 1 <= lab.run(experiment) <= 2, "the first could not know"


def test_a_crowd_of_callers_comes_to_share_runs(lab: Laboratory) -> None:
    runs = Runs()

    async def call(scheduler: Gathering, number: int) -> None:
        for turn in range(25):
            done = await scheduler.submit((number, turn), 1)
            assert done.result == ("answer", (number, turn))
            await asyncio.sleep(0.001)  # the answer is on its way
            scheduler.complete()

    async def experiment() -> None:
        await asyncio.gather(*(call(scheduler, number) for number in range(32)))

    with lab.scheduler(runs, batch=64, delay=0.25, inline=64) as scheduler:
        lab.run(experiment)
    assert sum(map(len, runs.groups)) == 32 * 25
    assert len(runs.groups) < 32 * 25 / 8, "groups of more than 8 in the mean"


@pytest.mark.parametrize("inline", [0, 8])
def test_an_answer_that_never_leaves_costs_a_lone_caller_a_wait_only_seldom(
    lab: Laboratory, inline: int
) -> None:
    async def experiment() -> int:
        scheduler.submit("stuck", 1)  # and never departs
        waits = []
        for number in range(100):
            waits.append((await scheduler.submit(number, 1)).queue_seconds)
            scheduler.complete()
        return sum(wait > 0.1 for wait in waits)

    with lab.scheduler(Runs(), delay=0.2, inline=inline) as scheduler:
        assert 1 <= lab.run(experiment) <= 5


# Rule 4: one run at a time


def test_requests_wait_while_a_run_goes_on_and_then_go_together(lab: Laboratory) -> None:
    runs = Runs()

    async def experiment() -> None:
        runs.let_go.clear()
        first = scheduler.submit("first", 1)
        rest = [scheduler.submit(number, 1) for number in range(5)]
        await asyncio.sleep(0.05)
        assert runs.groups == [["first"]]
        runs.let_go.set()
        await asyncio.gather(first, *rest)

    with lab.scheduler(runs) as scheduler:
        lab.run(experiment)
    assert runs.groups == [["first"], [0, 1, 2, 3, 4]]


def test_a_full_group_is_set_behind_a_run_and_begins_though_the_event_loop_is_busy(
    lab: Laboratory,
) -> None:
    runs, begun = Runs(), list[list[object]]()

    def hold_the_event_loop() -> None:
        runs.let_go.set()
        time.sleep(0.2)
        begun.extend(runs.groups)

    async def experiment() -> None:
        runs.let_go.clear()
        first = scheduler.submit("first", 1)
        rest = [scheduler.submit(number, 4) for number in range(4)]
        await until(lambda: bool(runs.groups))
        hold_the_event_loop()
        await asyncio.gather(first, *rest)

    with lab.scheduler(runs) as scheduler:
        lab.run(experiment)
    assert begun == [["first"], [0, 1]]
    assert runs.groups == [["first"], [0, 1], [2, 3]]


# Rule 5: start


def test_a_group_starts_when_as_many_wait_as_are_expected(lab: Laboratory) -> None:
    runs = Runs()

    async def experiment() -> None:
        await expect_company(scheduler, runs, 3)
        waiting = [scheduler.submit(number, 1) for number in range(2)]
        assert await is_pending(waiting[0])
        waiting.append(scheduler.submit(2, 1))
        await asyncio.gather(*waiting)

    with lab.scheduler(runs) as scheduler:
        lab.run(experiment)
    assert runs.groups == [[0, 1, 2]]


def test_a_group_starts_when_it_has_as_many_images_as_a_run_may_have(lab: Laboratory) -> None:
    runs = Runs()

    async def experiment() -> None:
        await expect_company(scheduler, runs, 5)
        small = scheduler.submit("small", 3)
        assert await is_pending(small)
        large = scheduler.submit("large", 5)
        await asyncio.gather(small, large)

    with lab.scheduler(runs, batch=8) as scheduler:
        lab.run(experiment)
    assert runs.groups == [["small", "large"]]


def test_a_group_starts_when_the_oldest_has_waited_for_the_delay(lab: Laboratory) -> None:
    runs = Runs()

    async def experiment() -> None:
        await expect_company(scheduler, runs, 5)
        first = scheduler.submit("first", 1)
        await asyncio.sleep(0.1)
        second = scheduler.submit("second", 1)
        waited = [(await done).queue_seconds for done in (first, second)]
        assert 0.249 <= waited[0] < 2
        assert waited[1] < waited[0] - 0.05

    with lab.scheduler(runs, delay=0.25) as scheduler:
        lab.run(experiment)
    assert runs.groups == [["first", "second"]]


def test_without_a_delay_nobody_waits_for_others(lab: Laboratory) -> None:
    async def experiment() -> None:
        await expect_company(scheduler, runs, 5, off_loop_images=9)
        for number in range(50):
            assert scheduler.submit(number, 1).done()

    runs = Runs()
    with lab.scheduler(runs, delay=0, inline=8) as scheduler:
        lab.run(experiment)
    assert len(runs.groups) == 50


@pytest.mark.parametrize("delay", [0.0001, 0.0004, 0.0007, 0.001, 0.0014, 0.0026, 0.0051])
def test_no_group_is_forgotten_however_early_its_timer_fires(lab: Laboratory, delay: float) -> None:
    """Timers of uvloop are of 1 ms, and call back at once for less than half of it."""

    async def experiment() -> None:
        await expect_company(scheduler, runs, 3, off_loop_images=9)
        for turn in range(60):
            three = [scheduler.submit((turn, each), 1) for each in range(3)]
            await asyncio.wait_for(asyncio.gather(*three), 10)
            scheduler.complete()
            scheduler.complete()  # the third is stuck, so that soon a fourth is expected, in vain
            await asyncio.sleep(turn % 7 * 0.0003)

    runs = Runs()
    with lab.scheduler(runs, delay=delay, inline=8) as scheduler:
        lab.run(experiment)
    assert any(len(group) == 3 for group in runs.groups), "the first has waited for the others"


# Rule 6: group


def test_a_group_is_in_the_order_of_arrival_and_no_larger_than_a_run_may_be(
    lab: Laboratory,
) -> None:
    runs = Runs()
    images = {"a": 3, "b": 5, "c": 1, "d": 8, "e": 20, "f": 4, "g": 4}

    async def experiment() -> None:
        runs.let_go.clear()
        held = scheduler.submit("held", 1)
        waiting = [scheduler.submit(name, count) for name, count in images.items()]
        runs.let_go.set()
        found = await asyncio.gather(held, *waiting)
        assert [done.result[1] for done in found] == ["held", *images]

    with lab.scheduler(runs, batch=8, delay=0.01) as scheduler:
        lab.run(experiment)
    assert runs.groups == [["held"], ["a", "b"], ["c"], ["d"], ["e"], ["f", "g"]]


@pytest.mark.parametrize("inline", [0, 8])
def test_what_does_not_merge_runs_alone_and_waits_for_nobody(lab: Laboratory, inline: int) -> None:
    async def experiment() -> None:
        waiting = [scheduler.submit(number, 1) for number in range(20)]
        await asyncio.gather(*waiting)

    runs = Runs()
    with lab.scheduler(runs, inline=inline, merge=False) as scheduler:
        lab.run(experiment)
    assert runs.groups == [[number] for number in range(20)]


@pytest.mark.parametrize("batch", [8, 16], ids=["set behind the run", "in the queue"])
def test_what_expired_or_was_cancelled_before_its_run_is_never_computed(
    lab: Laboratory, batch: int
) -> None:
    runs, admission = Runs(), AdmissionControl(100)

    async def experiment() -> None:
        runs.let_go.clear()
        held = scheduler.submit("held", 1)
        late = scheduler.submit("late", 2, time.monotonic() + 0.02)
        gone = scheduler.submit("gone", 4)
        fine = scheduler.submit("fine", 2, time.monotonic() + 60)
        await asyncio.sleep(0.05)
        gone.cancel()
        runs.let_go.set()
        await asyncio.gather(held, fine)
        with pytest.raises(DeadlineExceededError, match="nothing was computed"):
            await late
        assert admission.images == 0

    with lab.scheduler(runs, admission=admission, batch=batch) as scheduler:
        lab.run(experiment)
    assert runs.groups == [["held"], ["fine"]]


def test_a_queue_of_nothing_but_the_gone_empties(lab: Laboratory) -> None:
    runs, admission = Runs(), AdmissionControl(100)

    async def experiment() -> None:
        await expect_company(scheduler, runs, 5)
        gone = [scheduler.submit(number, 1) for number in range(3)]
        for each in gone:
            each.cancel()
            scheduler.complete()
        await until(lambda: admission.images == 0)
        assert (await scheduler.submit("next", 1)).result == ("answer", "next")

    with lab.scheduler(runs, admission=admission, delay=0.05) as scheduler:
        lab.run(experiment)
    assert runs.groups == [["next"]]


# Rule 7: results


@pytest.mark.parametrize("inline", [0, 8])
def test_a_failure_in_a_run_of_several_is_that_of_its_own_request(
    lab: Laboratory, inline: int
) -> None:
    runs = Runs(failing={1, 3})

    async def experiment() -> None:
        await expect_company(scheduler, runs, 4, off_loop_images=9)
        waiting = [scheduler.submit(number, 2) for number in range(4)]
        found = await asyncio.gather(*waiting, return_exceptions=True)
        for number, outcome in enumerate(found):
            if number in runs.failing:
                assert isinstance(outcome, RuntimeError)
                assert outcome.args == (number,)
            else:
                assert isinstance(outcome, BatchedResult)
                assert outcome.result == ("answer", number)

    with lab.scheduler(runs, inline=inline) as scheduler:
        lab.run(experiment)
    assert runs.groups == [[0, 1, 2, 3], [0], [1], [2], [3]]


def test_a_failure_that_passes_is_no_failure_of_any_of_several(lab: Laboratory) -> None:
    runs = Runs()

    def run(items: Sequence[int]) -> list[object]:
        if len(items) > 1:
            raise MemoryError
        return runs(items)

    async def experiment() -> None:
        runs.let_go.clear()  # the first runs alone, the others together
        waiting = [scheduler.submit(number, 1) for number in range(4)]
        runs.let_go.set()
        found = await asyncio.gather(*waiting)
        assert [done.result for done in found] == [("answer", number) for number in range(4)]

    with lab.scheduler(run) as scheduler:
        lab.run(experiment)


def test_a_wait_is_that_for_the_run_and_is_told(lab: Laboratory) -> None:
    runs, told = Runs(seconds=0.1), list[float]()

    async def experiment() -> None:
        first, second = scheduler.submit(1, 1), scheduler.submit(2, 1)
        waits = [(await first).queue_seconds, (await second).queue_seconds]
        assert waits[0] < 0.05
        assert waits[1] >= 0.09
        assert told == waits

    with lab.scheduler(runs, observe_wait=told.append) as scheduler:
        lab.run(experiment)


# Rule 8: place


def test_small_groups_run_on_the_event_loop_and_larger_ones_off_it(lab: Laboratory) -> None:
    runs = Runs()

    async def experiment() -> None:
        for images in (1, 4, 5, 8, 20):
            await scheduler.submit(images, images)
            scheduler.complete()

    with lab.scheduler(runs, inline=4) as scheduler:
        lab.run(experiment)
    here = threading.current_thread().name
    assert [name == here for name in runs.threads] == [True, True, False, False, False]


def test_the_event_loop_turns_while_a_large_group_runs(lab: Laboratory) -> None:
    runs = Runs()

    async def experiment() -> None:
        runs.let_go.clear()
        held = scheduler.submit("held", 5)
        for _ in range(10):
            await asyncio.sleep(0.001)
        assert not held.done()
        runs.let_go.set()
        await held

    with lab.scheduler(runs, inline=4) as scheduler:
        lab.run(experiment)
