"""The lines of calls: what is in them, when they are written, and which calls have one."""

import asyncio
import io
import json
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from server.observability.access_log import MAX_SECONDS, MAX_WAITING, AccessLog
from server.observability.calls import CallObserver
from server.observability.logging import configure_logs
from server.observability.metrics import ServerMetrics
from server.observability.records import CallRecord
from server.observability.traceparent import TraceParent

SECONDS = st.floats(0, 1e6)
COUNTS = st.integers(0, 2**63)
TRACE = TraceParent("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", is_sampled=True)


@pytest.fixture(autouse=True)
def configured() -> Iterator[None]:
    yield
    structlog.reset_defaults()


def ended(status: str = "OK", request_id: str = "one") -> CallRecord:
    record = CallRecord("/a/B", "grpc", "peer", request_id)
    record.status = status
    return record


@st.composite
def records(draw: st.DrawFn) -> CallRecord:
    """Return records of calls with any values, also some that no transport has."""
    trace = draw(st.sampled_from([TRACE, None]))
    texts = [draw(st.text()) for _ in range(3)]
    record = CallRecord(texts[0], draw(st.sampled_from(["grpc", "http"])), texts[1], "one", trace)
    record.status = draw(st.sampled_from(["OK", "NOT_FOUND", "INTERNAL", "UNAVAILABLE"]))
    record.model, record.model_version = texts[2], draw(COUNTS)
    record.images, record.request_bytes, record.response_bytes = (draw(COUNTS) for _ in range(3))
    record.queue_seconds, record.run_seconds = draw(SECONDS), draw(SECONDS)
    record.encode_seconds, record.seconds = draw(SECONDS), draw(SECONDS)
    return record


def expected(record: CallRecord) -> dict[str, object]:
    """Return what the line of a call says, but for its time."""
    is_failure = record.status in ("INTERNAL", "UNAVAILABLE")
    return {
        "method": record.method,
        "status": record.status,
        "images": record.images,
        "request_bytes": record.request_bytes,
        "response_bytes": record.response_bytes,
        "queue_ms": round(record.queue_seconds * 1000, 3),
        "compute_ms": round(record.run_seconds * 1000, 3),
        "encode_ms": round(record.encode_seconds * 1000, 3),
        "total_ms": round(record.seconds * 1000, 3),
        "peer": record.peer,
        "request_id": record.request_id,
        "trace_id": record.trace_id,
        "model": record.model or None,
        "version": record.model_version or None,
        "transport": record.transport,
        "event": "call",
        "level": "warning" if is_failure else "info",
    }


def line_of(record: CallRecord, log_format: str) -> str:
    """Return the line of a call that ended now."""
    written = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stderr", written)
        configure_logs("info", log_format)

        async def log() -> None:
            access_log = AccessLog(1)
            record.started = time.perf_counter() - record.seconds
            access_log.add(record)
            access_log.flush()

        asyncio.run(log())
    return written.getvalue()


@given(records())
def test_a_line_has_the_bytes_that_json_dumps_writes(record: CallRecord) -> None:
    before = datetime.now(UTC)
    line = line_of(record, "json")
    written = json.loads(line)["timestamp"]
    assert line == json.dumps({**expected(record), "timestamp": written}) + "\n"
    assert abs((datetime.fromisoformat(written) - before).total_seconds()) < 60
    assert written.endswith("Z")


@given(records())
def test_a_line_for_the_console_is_that_of_structlog(record: CallRecord) -> None:
    line = line_of(record, "console")
    written, _ = line.split(" ", 1)
    event = {**expected(record), "timestamp": written}
    render = structlog.dev.ConsoleRenderer(colors=False)
    assert line == f"{render(None, 'log', event)}\n"


def test_lines_are_written_together_after_a_moment(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("info", "json")

    async def log() -> list[int]:
        access_log, counts = AccessLog(1), []
        for each in range(MAX_WAITING):
            access_log.add(ended(request_id=str(each)))
            counts.append(capsys.readouterr().err.count("\n"))
        access_log.add(ended(request_id="last"))
        await asyncio.sleep(MAX_SECONDS * 1.5)
        return counts

    assert asyncio.run(log()) == [*[0] * (MAX_WAITING - 1), MAX_WAITING]
    assert json.loads(capsys.readouterr().err)["request_id"] == "last"


def test_what_waits_is_written_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("info", "json")

    async def serve() -> None:
        observer = CallObserver(ServerMetrics(), log_share=1)
        observer.end(observer.begin("/a/B", "grpc", "peer", ("one", None)), "OK")
        assert not capsys.readouterr().err
        await observer.close()

    asyncio.run(serve())
    assert json.loads(capsys.readouterr().err)["request_id"] == "one"


@pytest.mark.parametrize(
    ("level", "logged"), [("info", ["OK", "INTERNAL"]), ("warning", ["INTERNAL"]), ("error", [])]
)
@pytest.mark.parametrize("log_format", ["json", "console"])
def test_the_level_of_the_log_is_for_calls_too(
    level: str, logged: list[str], log_format: str, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logs(level, log_format)

    async def log() -> None:
        access_log = AccessLog(1)
        for status in ("OK", "INTERNAL"):
            access_log.add(ended(status))
        access_log.flush()

    asyncio.run(log())
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == len(logged)
    assert all(status in line for status, line in zip(logged, lines, strict=True))


def test_a_call_with_a_line_has_an_id() -> None:
    async def add() -> CallRecord:
        record = CallRecord("/a/B", "grpc", lambda: "asked")
        access_log = AccessLog(1)
        access_log.add(record)
        return record

    assert asyncio.run(add()).has_id
