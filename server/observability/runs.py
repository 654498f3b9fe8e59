"""Runs that several requests share, and who shared them."""

from dataclasses import dataclass

from server.observability.engine_metrics import BatcherName
from server.observability.traceparent import TraceParent


@dataclass(slots=True)
class Run:
    """A run of a batch.

    Args:
        batcher: the batcher that formed the batch.
        started: when it began, a time of time.monotonic.
        seconds: how long it took.
        requests: how many requests were in it.
        images: how many images they had in all.
        callers: the spans of those requests whose calls are traced.
        span: its own; None if it has no callers.
    """

    batcher: BatcherName
    started: float
    seconds: float
    requests: int
    images: int
    callers: list[TraceParent]
    span: TraceParent | None = None
