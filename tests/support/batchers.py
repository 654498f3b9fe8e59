"""Every implementation of the batcher's contract, and what its tests watch them with."""

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Protocol, TypeVar

import uvloop

from server.engine.admission import AdmissionControl
from server.engine.batched import BatchedResult
from server.engine.batcher import BatchingConfig, DynamicBatcher

Value = TypeVar("Value")

LONG = 30.0  # seconds; nobody waits for it where all is well


class Batcher(Protocol):
    """What the contract gives a caller; the module `server.engine.batcher` has its rules."""

    def submit(
        self,
        item: Any,  # noqa: ANN401 (whatever a run takes)
        images: int,
        deadline: float | None = None,
    ) -> asyncio.Future[BatchedResult[Any]]: ...

    def complete(self) -> None: ...

    def close(self) -> None: ...


Run = Callable[[Sequence[Any]], Sequence[Any]]
Implementation = Callable[[Run, AdmissionControl, BatchingConfig, Callable[[float], None]], Batcher]

IMPLEMENTATIONS: list[Implementation] = [DynamicBatcher]
LOOPS: list[Callable[[], asyncio.AbstractEventLoop]] = [
    asyncio.new_event_loop,
    uvloop.new_event_loop,
]


@dataclass
class Runs:
    """What a batcher has run: answers each item with itself, and can be held or fail."""

    seconds: float = 0
    batches: list[list[Any]] = field(default_factory=list)
    threads: list[str] = field(default_factory=list)
    failing: set[Any] = field(default_factory=set)  # items that fail every run they are in
    let_go: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.let_go.set()

    def __call__(self, items: Sequence[Any]) -> list[Any]:
        self.batches.append(list(items))
        self.threads.append(threading.current_thread().name)
        assert self.let_go.wait(LONG)
        if self.seconds:
            time.sleep(self.seconds)
        for item in items:
            if item in self.failing:
                raise RuntimeError(item)
        return [("answer", item) for item in items]


@dataclass(frozen=True)
class BatcherCase:
    """Makes batchers of one implementation, and runs experiments on one kind of event loop."""

    implementation: Implementation
    new_loop: Callable[[], asyncio.AbstractEventLoop]

    def __str__(self) -> str:
        return f"{self.implementation.__module__}-{self.new_loop.__module__}"

    def run(self, experiment: Callable[[], Coroutine[Any, Any, Value]]) -> Value:
        """Run an experiment, which fails if it takes too long."""
        with asyncio.Runner(loop_factory=self.new_loop) as runner:
            return runner.run(asyncio.wait_for(experiment(), LONG))

    @contextmanager
    def batcher(  # noqa: PLR0913 (each has a default)
        self,
        run: Run,
        *,
        admission: AdmissionControl | None = None,
        batch: int = 8,
        delay: float = LONG,
        inline: int = 0,
        merge: bool = True,
        observe_wait: Callable[[float], None] = lambda _: None,
    ) -> Iterator[Batcher]:
        """Make a batcher; a delay that nobody said anything of is one that nobody awaits."""
        limits = BatchingConfig(batch, delay, inline, merge)
        made = self.implementation(run, admission or AdmissionControl(10_000), limits, observe_wait)
        try:
            yield made
        finally:
            if isinstance(run, Runs):
                run.let_go.set()
            made.close()


BATCHER_CASES = [BatcherCase(*pair) for pair in product(IMPLEMENTATIONS, LOOPS)]


async def until(condition: Callable[[], bool]) -> None:
    """Return when the condition holds."""
    while not condition():  # noqa: ASYNC110 (a condition of another thread's)
        await asyncio.sleep(0.001)


async def raise_concurrency(
    batcher: Batcher, runs: Runs, count: int, off_loop_images: int = 1
) -> None:
    """Let so many requests be in flight at a time, so that as many are expected next.

    A run of `off_loop_images` must be in a thread.
    """
    runs.let_go.clear()
    first = batcher.submit("warm", off_loop_images)
    await until(lambda: runs.batches[-1:] == [["warm"]])
    others = [batcher.submit("warm too", 1) for _ in range(count - 1)]
    runs.let_go.set()
    await asyncio.gather(first, *others)
    for _ in range(count):
        batcher.complete()
    runs.batches.clear()
