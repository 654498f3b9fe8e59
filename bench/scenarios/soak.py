"""A mixed load for long, and what it does to memory and latency: `python -m bench soak`."""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from bench.load.counters import SERVICE, Counters, read_counters
from bench.load.h2load import Load, Shape, frame, load
from bench.load.processes import Served, running
from bench.load.requests import Request
from bench.reports.tables import Limit, limits_table, number, table
from bench.scenarios.cases import OURS, STREAM_MESSAGES
from bench.scenarios.check import check
from bench.scenarios.measure import SETTLE_SECONDS
from bench.scenarios.speed import open_model, say
from bench.servers.forward import Transport, forward

SEGMENT_SECONDS, MIN_SEGMENTS = 30, 4
WARM_SEGMENTS = 2
MAX_GROWTH_MEBIBYTES = 5.0


@dataclass(frozen=True)
class Workload:
    """One kind of load, beside the others."""

    request: Request
    shape: Shape


WORKLOADS: Sequence[Workload] = (
    Workload(Request("Predict", 1), Shape(16, 4)),
    Workload(Request("Predict", 64), Shape(2, 2)),
    Workload(Request("Trace", 1), Shape(4, 4)),
    Workload(Request("PredictStream", 1), Shape(1, 1, STREAM_MESSAGES)),
)


@dataclass(frozen=True)
class Segment:
    """What a part of the time showed."""

    ended: float  # seconds since the start
    loads: Sequence[Load]  # one a workload
    counted: Counters
    mebibytes: float

    @property
    def failed(self) -> int:
        """Requests that failed: as the client saw it, as the server counted it, or not computed."""
        images = sum(
            workload.request.images * workload.shape.messages_per_request * seen.requests
            for workload, seen in zip(WORKLOADS, self.loads, strict=True)
        )
        seen_failed = sum(seen.failed for seen in self.loads)
        counted = sum(self.counted.failures().values())
        cut = self.counted.calls("CANCELLED")
        too_many = max(0, cut - sum(workload.shape.callers for workload in WORKLOADS))
        return seen_failed + counted + too_many + max(0, images - self.counted.images)

    @property
    def requests(self) -> int:
        """Requests that were answered."""
        return sum(seen.requests for seen in self.loads)


def soak(transport: Transport, minutes: float) -> str:
    """Return the tables of so many minutes.

    Raises:
        RuntimeError: h2load failed.
    """
    seconds = max(1, min(SEGMENT_SECONDS, round(minutes * 60 / MIN_SEGMENTS)))
    segments: list[Segment] = []
    with running(*forward(transport)) as served:
        runner = open_model()
        for workload in WORKLOADS:
            check(OURS[transport], served.port, workload.request, runner)
        started = time.monotonic()
        while time.monotonic() - started < minutes * 60:
            segments.append(_segment(served, seconds, started))
            last = segments[-1]
            say(f"{last.ended:.0f} s: {last.mebibytes:.1f} MiB, {last.failed} failed")
    return _report(segments, minutes, seconds)


def _segment(served: Served, seconds: int, started: float) -> Segment:
    before = read_counters(served.metrics_port or 0)
    with ThreadPoolExecutor(len(WORKLOADS)) as pool:
        loads = list(pool.map(lambda workload: _load(served, workload, seconds), WORKLOADS))
    time.sleep(SETTLE_SECONDS)
    counted = read_counters(served.metrics_port or 0).since(before)
    return Segment(time.monotonic() - started, loads, counted, served.resident_mebibytes())


def _load(served: Served, workload: Workload, seconds: int) -> Load:
    body = frame(workload.request.message()) * workload.shape.messages_per_request
    url = served.url(f"/{SERVICE}/{workload.request.method}")
    return load(url, body, workload.shape, seconds=seconds)


def _report(segments: Sequence[Segment], minutes: float, seconds: int) -> str:
    workloads = "; ".join(
        f"{workload.request.title}: {workload.shape.callers} callers" for workload in WORKLOADS
    )
    warm = segments[min(WARM_SEGMENTS, len(segments)) - 1]
    failed = sum(segment.failed for segment in segments)
    growth = max(0.0, segments[-1].mebibytes - warm.mebibytes)
    rows = [
        (
            f"{segment.ended:.0f}",
            f"{segment.mebibytes:.1f}",
            *(number(seen.p99) for seen in segment.loads),
            number(segment.requests / seconds),
            str(segment.failed),
        )
        for segment in segments
    ]
    headings = (
        *("seconds", "MiB"),
        *(f"p99, ms: {workload.request.title}" for workload in WORKLOADS),
        *("requests/s", "failed"),
    )
    return "\n\n".join(
        part.strip()
        for part in (
            f"{number(minutes)} minutes, all callers at once, each with its next request when its "
            f"last was answered ({workloads}; a stream has {STREAM_MESSAGES:,} messages and is one "
            f"request). Every {seconds} s the clients connect anew.",
            "### Limits of the soak",
            limits_table(
                [
                    Limit(
                        f"growth of memory after {warm.ended:.0f} s",
                        growth,
                        "maximum",
                        MAX_GROWTH_MEBIBYTES,
                        1,
                        "MiB",
                    ),
                    Limit("failed requests", failed, "maximum", 0, 1, ""),
                ]
            ),
            "### Over time",
            table(headings, rows, left=0),
        )
    )
