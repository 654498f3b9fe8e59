"""The line of a call in the log."""

from structlog.typing import FilteringBoundLogger

from server.observability.records import CallRecord

# Failures that are the server's, by OpenTelemetry's semantic conventions for servers of gRPC.
SERVER_FAILURES = frozenset(
    ("UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS")
)


def log_call(record: CallRecord, log: FilteringBoundLogger) -> None:
    """Write the line of a call into the log."""
    report = log.warning if record.status in SERVER_FAILURES else log.info
    report(
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
    )


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 3)
