"""Twice as many requests as a server can answer, for long: `python -m bench overload`."""

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bench.load.counters import SERVICE, Counters, read_counters
from bench.load.h2load import Load, Shape, frame, load
from bench.load.memory import MemorySampler
from bench.load.open_loop import OpenLoopClient, Outcome, sample
from bench.load.processes import Served, running
from bench.load.requests import Request
from bench.reports.tables import Limit, limits_table, number, table
from bench.scenarios.cases import OURS
from bench.scenarios.check import check
from bench.scenarios.speed import open_model, say
from bench.servers.forward import Transport, forward

QUEUE_IMAGES, DELAY_MS = 8192, 5.0  # the server's defaults
# h2load sends what a connection's rate allows all at once, every 10 ms or more: many
# connections would make a burst that is larger than the queue of what is no overload.
OPEN = Shape(512, 4)
CAPACITY_SECONDS = 3
HEAVY_RATE, NORMAL_RATE = 10, 20  # requests/s of the open-loop clients, which share the cores
AFTER_SECONDS = 3
NORMAL_FACTOR, NORMAL_MIN_MS = 3, 10.0  # times its median before, a normal answer may take
MAX_GROWTH_MEBIBYTES = 5.0
ANSWERED, REFUSED = "OK", "RESOURCE_EXHAUSTED"


@dataclass(frozen=True)
class Overload:
    """What was seen at twice the capacity."""

    request: Request
    callers: int  # that the capacity was found with
    capacity: float  # requests a second
    load: Load
    counted: Counters
    heavy: Sequence[Outcome]  # during the load
    normal: Sequence[Outcome]  # during it and afterwards
    normal_ms: float  # what one may take
    memory: MemorySampler

    def milliseconds(self, status: str) -> np.ndarray:
        """Return how long heavy requests with that status took, of those that the load met."""
        return np.array(
            [
                each.milliseconds
                for each in self.heavy
                if each.status == status and each.started < self.load.ended
            ]
        )

    def recovery_seconds(self) -> float:
        """Return the time from the end of the load to the first normal answer."""
        return next(
            (
                each.ended - self.load.ended
                for each in self.normal
                if each.started >= self.load.ended
                and each.status == ANSWERED
                and each.milliseconds <= self.normal_ms
            ),
            math.inf,
        )


def overload(transport: Transport, seconds: int, images: int) -> str:
    """Return the tables of an overload of so many seconds, by requests of so many images.

    Raises:
        RuntimeError: h2load failed, or too little came back to tell anything.
    """
    queue = ("--max-queue-images", str(QUEUE_IMAGES), "--max-queue-delay-ms", str(DELAY_MS))
    with running(*forward(transport), *queue) as served:
        request = Request("Predict", images)
        check(OURS[transport], served.port, request, open_model())
        return _report(_run(served, request, seconds), seconds)


def _run(served: Served, request: Request, seconds: int) -> Overload:
    callers = QUEUE_IMAGES // request.images  # they fill the queue, and no more
    usual = asyncio.run(sample(served.port, 1, NORMAL_RATE, 2))
    normal_ms = max(NORMAL_MIN_MS, NORMAL_FACTOR * float(np.median(_milliseconds(usual))))
    capacity = _capacity(served, request, callers)
    say(f"capacity: {capacity:.0f} requests a second; now twice that for {seconds} s")
    before = read_counters(served.metrics_port or 0)
    with MemorySampler(served) as memory:
        heavy = OpenLoopClient(served.port, request.images, HEAVY_RATE, seconds)
        normal = OpenLoopClient(served.port, 1, NORMAL_RATE, seconds + AFTER_SECONDS)
        seen = load(
            served.url(f"/{SERVICE}/Predict"),
            frame(request.message()),
            OPEN,
            seconds=seconds,
            options=("--rps", str(round(2 * capacity / OPEN.connections))),
        )
    counted = read_counters(served.metrics_port or 0).since(before)
    return Overload(
        request,
        callers,
        capacity,
        seen,
        counted,
        heavy.outcomes(),
        normal.outcomes(),
        normal_ms,
        memory,
    )


def _capacity(served: Served, request: Request, callers: int) -> float:
    """Return the requests a second that are answered when callers wait for their answers."""
    url, body = served.url(f"/{SERVICE}/Predict"), frame(request.message())
    shape = Shape(callers, callers)
    load(url, body, shape, requests=500)
    before = read_counters(served.metrics_port or 0)
    seen = load(url, body, shape, seconds=CAPACITY_SECONDS)
    counted = read_counters(served.metrics_port or 0).since(before)
    if counted.failures():
        raise RuntimeError(f"at its capacity the server answered {counted.failures()}")
    return seen.requests / seen.seconds


def _milliseconds(outcomes: Sequence[Outcome]) -> list[float]:
    return [each.milliseconds for each in outcomes]


def _report(seen: Overload, seconds: int) -> str:
    answered, refused = (seen.milliseconds(status) for status in (ANSWERED, REFUSED))
    if not len(answered):
        raise RuntimeError(f"of {len(seen.heavy)} heavy requests none was answered in time")
    return "\n\n".join(
        part.strip()
        for part in (
            f"{seconds} s of requests of {seen.request.images} uint8 images, offered by h2load at "
            f"twice the rate that {seen.callers} waiting callers get, whatever comes back; "
            f"`--max-queue-images {QUEUE_IMAGES}`. Status and latency are those of a second "
            f"client beside it, {HEAVY_RATE} such requests a second from grpcio; counts are "
            "the server's own.",
            "### Limits under overload",
            limits_table(_limits(seen, answered, refused)),
            "### Figures under overload",
            table(("figure", "measured"), _figures(seen, answered, refused)),
        )
    )


def _limits(seen: Overload, answered: np.ndarray, refused: np.ndarray) -> list[Limit]:
    p99 = float(np.percentile(answered, 99))
    at_capacity = QUEUE_IMAGES / (seen.capacity * seen.request.images) * 1e3 + DELAY_MS
    overloaded = QUEUE_IMAGES / (seen.counted.images / seen.load.seconds) * 1e3 + DELAY_MS
    quarters = seen.memory.quarters()
    return [
        Limit(
            "p99 answered",
            p99,
            "queue's bound, at the rate under overload",
            overloaded,
            1,
            "ms",
        ),
        Limit("p99 answered", p99, "queue's bound, at the capacity", at_capacity, 1, "ms"),
        # None refused: they wait where the queue's bound does not hold them.
        Limit(
            "p50 refused" if len(refused) else "p50 refused (none was)",
            float(np.median(refused)) if len(refused) else math.inf,
            "p50 answered",
            float(np.median(answered)),
            1,
            "ms",
        ),
        Limit(
            "growth of memory, second to last quarter",
            max(0.0, quarters[-1] - quarters[1]),
            "maximum",
            MAX_GROWTH_MEBIBYTES,
            1,
            "MiB",
        ),
        Limit(
            "until a normal answer after the load", seen.recovery_seconds(), "maximum", 1.0, 1, "s"
        ),
    ]


def _figures(seen: Overload, answered: np.ndarray, refused: np.ndarray) -> list[tuple[str, str]]:
    seconds, counted, memory = seen.load.seconds, seen.counted, seen.memory.mebibytes
    offered = seen.load.requests / seconds
    others = {code: n for code, n in counted.failures().items() if code != REFUSED}
    others |= {"CANCELLED": cut} if (cut := counted.calls("CANCELLED")) else {}
    seen_codes = {each.status for each in seen.heavy} - {ANSWERED, REFUSED}
    return [
        ("capacity, requests/s", number(seen.capacity)),
        (
            "offered and ended, requests/s",
            f"{number(offered)}, {offered / seen.capacity:.2f} x capacity",
        ),
        ("answered, images/s", number(counted.images / seconds)),
        ("answered with OK (of all clients)", f"{counted.calls(ANSWERED):,}"),
        ("RESOURCE_EXHAUSTED", f"{counted.calls(REFUSED):,}"),
        ("other codes (CANCELLED: cut off by the end)", str(others or "none")),
        ("other codes that the second client saw", ", ".join(sorted(seen_codes)) or "none"),
        ("answered: p50, p99 of the second client, ms", _percentiles(answered)),
        ("refused: p50, p99 of the second client, ms", _percentiles(refused)),
        (
            "memory at start, maximum, at end, MiB",
            ", ".join(map(number, (memory[0], max(memory), memory[-1]))),
        ),
    ]


def _percentiles(milliseconds: np.ndarray) -> str:
    if not len(milliseconds):
        return "none"
    p50, p99 = np.percentile(milliseconds, (50, 99))
    return f"{number(float(p50))}, {number(float(p99))} (of {len(milliseconds):,})"
