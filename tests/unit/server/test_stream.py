"""One stream's answers when the server drains, at the moments that are hard to hit from outside."""

import asyncio
from collections.abc import AsyncIterator, Callable

import numpy as np
import pytest

from server.api.forward_v1.stream import OrderedAnswers
from server.context import CallContext
from server.errors import ServiceError, UnavailableError
from tests.support.servers import BareCall


class DrainedCall(BareCall):
    """A call whose drain the test begins."""

    def __init__(self, *, at_once: bool) -> None:
        super().__init__()
        self.drain: Callable[[], None] = lambda: None
        self._at_once = at_once

    def when_draining(self, callback: Callable[[], None]) -> None:
        self.drain = callback
        if self._at_once:
            callback()


async def answered(
    call: DrainedCall, read: int, answers: list[asyncio.Future[int]]
) -> list[int | ServiceError]:
    async def requests() -> AsyncIterator[int]:
        for number in range(read):
            yield number

    def submit(_images: np.ndarray, _call: CallContext) -> asyncio.Future[int]:
        answers.append(asyncio.get_running_loop().create_future())
        return answers[-1]

    stream: OrderedAnswers[int, np.ndarray, int] = OrderedAnswers(
        lambda _: np.zeros(1), submit, call, 8
    )
    return [answer async for _, answer in stream.run(requests())]


def test_a_stream_that_begins_in_a_drain_ends_at_once() -> None:
    async def run() -> None:
        with pytest.raises(UnavailableError):
            await asyncio.wait_for(answered(DrainedCall(at_once=True), 2, []), 5)

    asyncio.run(run())


def test_a_stream_that_was_read_to_its_end_before_the_drain_ends_well() -> None:
    async def run() -> None:
        call, answers = DrainedCall(at_once=False), list[asyncio.Future[int]]()
        running = asyncio.create_task(answered(call, 2, answers))
        await asyncio.sleep(0.05)
        assert len(answers) == 2
        call.drain()
        for number, answer in enumerate(answers):
            answer.set_result(number)
        assert await asyncio.wait_for(running, 5) == [0, 1]

    asyncio.run(run())


def test_what_the_transport_raises_ends_the_stream_after_the_answers_to_what_was_read() -> None:
    async def requests() -> AsyncIterator[int]:
        yield 7
        raise ConnectionError("the transport's own")

    def submit(_images: np.ndarray, _call: CallContext) -> asyncio.Future[int]:
        answer = asyncio.get_running_loop().create_future()
        answer.set_result(7)
        return answer

    async def run() -> None:
        stream: OrderedAnswers[int, np.ndarray, int] = OrderedAnswers(
            lambda _: np.zeros(1), submit, BareCall(), 8
        )
        answers = stream.run(requests())
        assert (await anext(answers))[1] == 7
        with pytest.raises(ConnectionError, match="the transport's own"):
            await anext(answers)

    asyncio.run(run())
