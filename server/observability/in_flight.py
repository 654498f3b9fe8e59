"""What every call in flight waits for, written into the log when somebody asks."""

import time
from collections.abc import Callable

import structlog

from server.observability.calls import CallObserver
from server.observability.engine_metrics import BATCHERS

MAX_LINES = 200  # calls, the oldest: the log drops what comes at a time beyond a thousand lines

log = structlog.get_logger()


def log_in_flight(observer: CallObserver, queue_images: Callable[[], int]) -> None:
    """Write a line of all calls in flight, and one of each, the oldest first.

    `queue_images` returns how many images wait or run.
    """
    observer.metrics.update()  # what other threads count is as of the last scrape
    now = time.perf_counter()
    engine, calls = observer.metrics.engine, observer.metrics.calls
    records = sorted(observer.running, key=lambda record: record.started)
    log.info(
        "in flight",
        calls=len(records),
        lane_calls=calls.in_flight() - len(records),
        queue_images=queue_images(),
        oldest_ms={name: round(engine.oldest(name) * 1000, 3) for name in BATCHERS},
        shown=min(len(records), MAX_LINES),
    )
    for record in records[:MAX_LINES]:
        log.info(
            "call in flight",
            method=record.method,
            waits_for=record.phase,
            age_ms=round((now - record.started) * 1000, 3),
            images=record.images,
            request_id=record.request_id,
            trace_id=record.trace_id,
            peer=record.peer,
            transport=record.transport,
        )
