"""The scheduler: bounded, in order, and no work for a caller that is gone."""

import asyncio
import threading
import time
from collections.abc import Iterator

import pytest

from server.errors import DeadlineExceededError, QueueFullError
from server.scheduler import Scheduler


@pytest.fixture
def scheduler() -> Iterator[Scheduler]:
    created = Scheduler(max_queue_images=4)
    yield created
    created.close()


def test_results_go_to_their_own_callers_in_order(scheduler: Scheduler) -> None:
    order: list[int] = []

    def compute(number: int) -> int:
        order.append(number)
        return number * 10

    async def calls() -> list[int]:
        runs = await asyncio.gather(
            *(scheduler.run(1, lambda n=n: compute(n), None) for n in range(4))  # type: ignore[misc] # mypy can't type the default
        )
        return [run.result for run in runs]

    assert asyncio.run(calls()) == [0, 10, 20, 30]
    assert order == [0, 1, 2, 3]
    assert scheduler.queued_images == 0


def test_a_full_queue_refuses_at_once_and_has_room_again_later(scheduler: Scheduler) -> None:
    let_go = threading.Event()

    async def calls() -> None:
        held = asyncio.create_task(scheduler.run(3, let_go.wait, None))
        await asyncio.sleep(0.01)
        with pytest.raises(QueueFullError, match="holds 3 of at most 4 images") as full:
            await scheduler.run(2, lambda: None, None)
        assert full.value.retry_seconds > 0
        let_go.set()
        await held
        assert (await scheduler.run(4, lambda: "room", None)).result == "room"
        assert scheduler.queued_images == 0

    asyncio.run(calls())


def test_what_expired_or_was_cancelled_in_the_queue_is_never_computed(
    scheduler: Scheduler,
) -> None:
    let_go = threading.Event()
    computed: list[str] = []

    async def calls() -> None:
        held = asyncio.create_task(scheduler.run(1, let_go.wait, None))
        late = asyncio.create_task(
            scheduler.run(1, lambda: computed.append("late"), time.monotonic() + 0.02)
        )
        gone = asyncio.create_task(scheduler.run(1, lambda: computed.append("gone"), None))
        await asyncio.sleep(0.05)
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        let_go.set()
        await held
        with pytest.raises(DeadlineExceededError, match="nothing was computed"):
            await late
        await scheduler.run(1, lambda: computed.append("last"), time.monotonic() + 60)

    asyncio.run(calls())
    assert computed == ["last"]
    assert scheduler.queued_images == 0


def test_images_count_until_the_thread_is_done_with_them(scheduler: Scheduler) -> None:
    let_go = threading.Event()

    async def calls() -> None:
        gone = asyncio.create_task(scheduler.run(3, let_go.wait, None))
        await asyncio.sleep(0.05)
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        assert scheduler.queued_images == 3, "the thread still computes them"
        let_go.set()
        await scheduler.run(1, lambda: None, None)
        assert scheduler.queued_images <= 1
        await asyncio.sleep(0.01)
        assert scheduler.queued_images == 0

    asyncio.run(calls())


def test_a_failure_is_that_of_its_own_request(scheduler: Scheduler) -> None:
    def fail() -> None:
        raise MemoryError

    async def calls() -> None:
        failed, fine = await asyncio.gather(
            scheduler.run(1, fail, None),
            scheduler.run(1, lambda: "fine", None),
            return_exceptions=True,
        )
        assert isinstance(failed, MemoryError)
        assert not isinstance(fine, BaseException)
        assert fine.result == "fine"

    asyncio.run(calls())
    assert scheduler.queued_images == 0


def test_queue_and_run_times_are_apart(scheduler: Scheduler) -> None:
    async def calls() -> None:
        first, second = await asyncio.gather(
            *(scheduler.run(1, lambda: time.sleep(0.05), None) for _ in range(2))
        )
        assert first.run_seconds >= 0.05
        assert second.queue_seconds >= 0.05
        assert first.queue_seconds < second.queue_seconds

    asyncio.run(calls())
