"""The identity of a call, and what the metrics keep of it."""

import asyncio
import re
import string
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from server.observability.build_info import publish_build_info
from server.observability.event_loop import INTERVAL_SECONDS, EventLoopLag
from server.observability.histogram import BufferedHistogram
from server.observability.metrics import ServerMetrics
from server.observability.records import CallRecord
from server.observability.request_id import make_request_id, read_identity
from server.observability.traceparent import parse_traceparent

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.mark.parametrize(
    ("value", "is_sampled"),
    [
        (f"00-{TRACE}-{SPAN}-01", True),
        (f"00-{TRACE}-{SPAN}-00", False),
        (f"00-{TRACE}-{SPAN}-02", False),
        (f"00-{TRACE}-{SPAN}-ff", True),
        (f"cc-{TRACE}-{SPAN}-01-what-a-later-version-has", True),
        (f"cc-{TRACE}-{SPAN}-01", True),
    ],
)
def test_a_traceparent_is_read(value: str, is_sampled: bool) -> None:
    assert parse_traceparent(value) == (TRACE, SPAN, is_sampled)


@pytest.mark.parametrize(
    "value",
    [
        "",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE}-{SPAN}-01\n",
        f"cc-{TRACE}-{SPAN}-01.more",
        f" 00-{TRACE}-{SPAN}-01",
    ],
)
def test_what_is_no_traceparent_is_ignored(value: str) -> None:
    assert parse_traceparent(value) is None


@given(st.text())
def test_no_text_upsets_the_reading(value: str) -> None:
    request_id, traceparent = read_identity([("x-request-id", value), ("traceparent", value)])
    assert traceparent is None
    allowed = {*string.ascii_letters, *string.digits, *"._-"}
    is_right = 1 <= len(value) <= 128 and set(value) <= allowed
    assert request_id == (value if is_right else "")


def test_an_id_is_made_once_when_it_is_asked_for() -> None:
    record, other = CallRecord("method", "grpc", "peer"), CallRecord("method", "grpc", "peer")
    before, made, after = record.has_id, record.request_id, record.has_id
    assert (before, after) == (False, True)
    assert re.fullmatch("[0-9a-f]{32}", made)
    assert record.request_id == made != other.request_id


def test_the_identity_is_found_among_other_metadata() -> None:
    metadata: list[tuple[str, str | bytes]] = [
        ("user-agent", "grpc"),
        ("x-request-id", "one"),
        ("x-request-id-bin", b"two"),
        ("traceparent", f"00-{TRACE}-{SPAN}-01"),
    ]
    assert read_identity(metadata) == ("one", (TRACE, SPAN, True))
    assert len({make_request_id() for _ in range(1000)}) == 1000


def test_the_newest_exemplar_of_each_bucket_is_kept() -> None:
    registry = CollectorRegistry()
    observations = BufferedHistogram("h", "H.", ("l",), (1.0, 2.0), registry).labels("x")
    for value, trace in ((0.5, "a"), (1.0, "b"), (1.5, "c"), (9.0, "d"), (8.0, "e")):
        observations.observe(value)
        observations.note_exemplar(value, trace)
    buckets: Any = observations.totals()[0]
    found = [(name, total, kept.labels, kept.value) for name, total, kept in buckets]
    assert found == [
        ("1.0", 2, {"trace_id": "b"}, 1.0),
        ("2.0", 3, {"trace_id": "c"}, 1.5),
        ("+Inf", 5, {"trace_id": "e"}, 8.0),
    ]


def test_a_held_event_loop_is_seen() -> None:
    registry = CollectorRegistry()

    async def run() -> None:
        lag = EventLoopLag(registry)
        await asyncio.sleep(INTERVAL_SECONDS * 1.5)
        time.sleep(INTERVAL_SECONDS * 2)  # noqa: ASYNC251 (what holds the loop)
        await asyncio.sleep(0.01)
        lag.stop()

    asyncio.run(run())
    fired = registry.get_sample_value("forward_event_loop_lag_seconds_count")
    assert fired is not None
    assert fired >= 2  # more on a machine that is late itself
    late = registry.get_sample_value("forward_event_loop_lag_seconds_sum")
    assert late is not None
    assert INTERVAL_SECONDS < late < 60


@pytest.mark.parametrize("has_native", [True, False])
def test_the_releases_are_published(has_native: bool) -> None:
    registry = CollectorRegistry()
    publish_build_info(registry, has_native=has_native)
    ((sample,),) = (family.samples for family in registry.collect())
    assert sample.value == 1
    labels = sample.labels
    assert set(labels) == {"version", "python", "onnxruntime", "grpcio", "native"}
    assert bool(labels.pop("native")) == has_native
    assert all(re.match(r"\d+\.\d+", value) for value in labels.values())


def test_of_several_traceparents_the_last_counts() -> None:
    """As in the native transport."""
    sent = [("traceparent", f"00-{trace * 32}-{SPAN}-01") for trace in ("1", "2")]
    _, traceparent = read_identity(sent)
    assert traceparent == ("2" * 32, SPAN, True)


def test_the_age_of_the_queue_is_that_of_the_oldest() -> None:
    metrics = ServerMetrics()
    for seconds in (1.0, 3.0, 2.0):
        metrics.engine.add_oldest("predict", lambda seconds=seconds: seconds)  # type: ignore[misc] # mypy cannot infer the type of a lambda with a default
    assert (metrics.engine.oldest("predict"), metrics.engine.oldest("trace")) == (3.0, 0.0)
