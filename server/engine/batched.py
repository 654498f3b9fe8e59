"""A request as the batcher has it, and what came of it."""

import asyncio
from collections.abc import Sequence
from typing import Generic, NamedTuple, TypeVar

from server.observability.records import CallRecord, Phase
from server.observability.runs import Run

Item = TypeVar("Item")
Result = TypeVar("Result")


class BatchedResult(NamedTuple, Generic[Result]):
    """A request's own result, the seconds that it waited for its run, and the run."""

    result: Result
    queue_seconds: float
    run: Run


class BatchedRequest(NamedTuple, Generic[Item, Result]):
    """A request that waits; times are those of time.monotonic.

    `caller` is the record of its call, if it has one.
    """

    item: Item
    images: int
    deadline: float | None
    arrived: float
    future: asyncio.Future[BatchedResult[Result]]
    caller: CallRecord | None = None

    def note(self, phase: Phase) -> None:
        """Note in the record of the call what it waits for."""
        if self.caller is not None:
            self.caller.phase = phase


class RanBatch(NamedTuple, Generic[Item, Result]):
    """A batch after its run."""

    started: float
    ended: float
    wanted: Sequence[BatchedRequest[Item, Result]]  # those that were run
    outcomes: Sequence[Result | Exception]  # one for each of them
    dropped: Sequence[BatchedRequest[Item, Result]]  # cancelled, or too late for their deadline
