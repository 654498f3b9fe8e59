"""The lines of calls in the log.

They are rendered together, a moment after their calls: a timer and a wake of the thread that writes
cost more than a line. And where they are JSON, it is not by structlog's processors, which take
several times as long.
"""

import asyncio
import json
import logging
import sys
import time
from datetime import UTC, datetime
from functools import lru_cache
from random import Random

import structlog
from structlog.typing import FilteringBoundLogger

from server.observability.logging import writes_json
from server.observability.records import CallRecord

# Failures that are the server's, by OpenTelemetry's semantic conventions for servers of gRPC.
SERVER_FAILURES = frozenset(
    ("UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS")
)
MAX_WAITING = 64  # calls
MAX_SECONDS = 0.1  # that one waits

_random = Random()  # noqa: S311 (a sample is no secret)


class AccessLog:
    """Has all failures of the server's, and a share of the other calls.

    All methods belong to one event loop.
    """

    def __init__(self, share: float) -> None:
        self._share = share
        self._waiting: list[CallRecord] = []
        self._timer: asyncio.TimerHandle | None = None

    def chooses(self, status: str) -> bool:
        """Tell if it is to have a call that ended with a status."""
        return status in SERVER_FAILURES or (self._share > 0 and _random.random() < self._share)

    def add(self, record: CallRecord) -> None:
        """Take a call that has ended; its line is written soon."""
        # While the transport knows the peer, and before it asks whether there is an id.
        _ = record.peer, record.request_id
        self._waiting.append(record)
        if len(self._waiting) >= MAX_WAITING:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(MAX_SECONDS, self.flush)

    def flush(self) -> None:
        """Write the lines of the calls that wait."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waiting, self._waiting = self._waiting, []
        log: FilteringBoundLogger = structlog.get_logger().bind()
        log_call = _log_json if writes_json() else _log_fields
        since = time.time() - time.perf_counter()  # 1970, by the clock of the records
        for record in waiting:
            level = logging.WARNING if record.status in SERVER_FAILURES else logging.INFO
            if log.is_enabled_for(level):
                log_call(record, level, _written(since + record.started + record.seconds), log)


def _written(seconds: float) -> str:
    """Return a time, in seconds since 1970, as structlog writes it."""
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 3)


def _log_fields(record: CallRecord, level: int, ended: str, log: FilteringBoundLogger) -> None:
    log.log(
        level,
        "call",
        method=record.method,
        status=record.status,
        images=record.images,
        request_bytes=record.request_bytes,
        response_bytes=record.response_bytes,
        queue_ms=_milliseconds(record.queue_seconds),
        compute_ms=_milliseconds(record.run_seconds),
        encode_ms=_milliseconds(record.encode_seconds),
        total_ms=_milliseconds(record.seconds),
        peer=record.peer,
        request_id=record.request_id,
        trace_id=record.trace_id,
        model=record.model or None,
        version=record.model_version or None,
        transport=record.transport,
        timestamp=ended,
    )


# Most are a few names over and over.
_json = lru_cache(1024)(json.JSONEncoder().encode)
LEVELS = {logging.INFO: "info", logging.WARNING: "warning"}


def _log_json(record: CallRecord, level: int, ended: str, _log: FilteringBoundLogger) -> None:
    """Write the line that `_log_fields` does, in a quarter of the time."""
    r = record
    sys.stderr.write(
        f'{{"method": {_json(r.method)}, "status": "{r.status}", "images": {r.images}, '
        f'"request_bytes": {r.request_bytes}, "response_bytes": {r.response_bytes}, '
        f'"queue_ms": {_milliseconds(r.queue_seconds)}, '
        f'"compute_ms": {_milliseconds(r.run_seconds)}, '
        f'"encode_ms": {_milliseconds(r.encode_seconds)}, '
        f'"total_ms": {_milliseconds(r.seconds)}, "peer": {_json(r.peer)}, '
        f'"request_id": {_json(r.request_id)}, "trace_id": {_json(r.trace_id)}, '
        f'"model": {_json(r.model or None)}, "version": {r.model_version or "null"}, '
        f'"transport": "{r.transport}", "event": "call", "level": "{LEVELS[level]}", '
        f'"timestamp": "{ended}"}}\n'
    )
