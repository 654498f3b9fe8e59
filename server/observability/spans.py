"""Spans of calls and of runs, made by OpenTelemetry's SDK, which this module needs.

Whether a call is sampled is known from its beginning, and so are the ids of its span, for others
refer to them. The spans themselves are made when the call has ended, of what its record says.
"""

import asyncio
import threading
import time
from collections.abc import Sequence
from importlib.metadata import version

from google.rpc import code_pb2
from opentelemetry.context import Context
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)
from opentelemetry.util.types import AttributeValue

from server.observability.access_log import SERVER_FAILURES
from server.observability.exporting import CountingExporter
from server.observability.metrics import SpanLoss
from server.observability.records import CallRecord
from server.observability.runs import Run
from server.observability.traceparent import TraceParent

PACKAGE = "forward-server"
NO_NAME = "unknown_service"  # how OpenTelemetry begins the name of a service that has none
CLOSE_SECONDS = 2.0
NO_CONTEXT = Context()
FLAGS = {True: TraceFlags(TraceFlags.SAMPLED), False: TraceFlags(TraceFlags.DEFAULT)}

UNSET, FAILED = Status(), Status(StatusCode.ERROR)

Attributes = dict[str, AttributeValue]
Times = tuple[int, int]  # begin and end, in nanoseconds since 1970


class Tracer:
    """Makes spans of calls and of runs; a thread of the SDK's sends them.

    What the receiver does not take in time is dropped: no call waits for it. All methods belong to
    one event loop. The spans are not made by a tracer of the SDK's, which is for those that are
    open for a while: it takes 20 times as long.
    """

    def __init__(
        self, exporter: SpanExporter, root_share: float = 1.0, max_waiting: int = 2048
    ) -> None:
        self.root_share = root_share
        self._exporter = CountingExporter(exporter)
        self._max_waiting = max_waiting
        self._accepted = self._refused = 0
        # It is asked only for what it reads from the environment.
        provider = TracerProvider(resource=_resource(), shutdown_on_exit=False)
        self._sampler = provider.sampler
        self._ids = provider.id_generator
        self._resource = provider.resource
        self._scope = InstrumentationScope("forward", version(PACKAGE))
        self._processor = BatchSpanProcessor(self._exporter, max_waiting)

    @property
    def sampler(self) -> str:
        """Describe which calls are sampled."""
        return self._sampler.get_description()

    def sample(self, record: CallRecord, *, is_chosen: bool = False) -> None:
        """Decide if a call is sampled; give it a span if it is.

        `is_chosen`: of the calls without a caller's span, the share has been taken.
        """
        if (parent := record.traceparent) is None:
            context, trace_id = NO_CONTEXT, self._ids.generate_trace_id()
        else:
            remote = _context(parent, is_remote=True)
            context = set_span_in_context(NonRecordingSpan(remote), NO_CONTEXT)
            trace_id = remote.trace_id
        is_sampled = is_chosen and parent is None and self.root_share < 1
        if not is_sampled:
            decided = self._sampler.should_sample(context, trace_id, record.method, SpanKind.SERVER)
            is_sampled = decided.decision is Decision.RECORD_AND_SAMPLE
        if is_sampled:
            record.span = self._new_span(f"{trace_id:032x}")
            record.observe_run = self.end_run

    def end(self, record: CallRecord) -> None:
        """Send the spans of a call that has ended, if it is sampled."""
        if record.span is None:
            return
        clock, span = _WallClock(), _context(record.span)
        caller = record.traceparent
        self._send(
            record.method.removeprefix("/"),
            span,
            clock.times(record.started, record.seconds),
            _context(caller, is_remote=True) if caller else None,
            attributes=_attributes(record),
            kind=SpanKind.SERVER,
            status=FAILED if record.status in SERVER_FAILURES else UNSET,
        )
        if (run := record.run) is not None:
            queued = clock.times(run.started - record.queue_seconds, record.queue_seconds)
            computed = clock.times(run.started, record.run_seconds)
            self._send_child("queue", queued, span)
            self._send_child("compute", computed, span, links=(run.span,) if run.span else ())
            if record.encode_started:
                encoded = clock.times(record.encode_started, record.encode_seconds)
                self._send_child("encode", encoded, span)

    def end_run(self, run: Run) -> None:
        """Send the span of a run that has ended, when the first of its traced calls says so.

        It has a trace of its own: it belongs to all of them alike.
        """
        if run.span is not None:
            return
        run.span = self._new_span(f"{self._ids.generate_trace_id():032x}")
        self._send(
            "batch",
            _context(run.span),
            _WallClock().times(run.started, run.seconds),
            links=run.callers,
            attributes={
                "forward.batcher": run.batcher,
                "forward.batch.requests": run.requests,
                "forward.batch.images": run.images,
            },
        )

    def dropped(self, reason: SpanLoss) -> int:
        """Return how many spans their receiver did not get; any thread may ask."""
        return self._refused if reason == "queue_full" else self._exporter.failed

    async def close(self) -> None:
        """Send what waits, if the receiver takes it in a moment."""
        # The SDK would wait for longer than the drain of a server may take.
        closing = threading.Thread(target=self._processor.shutdown, daemon=True)
        closing.start()
        await asyncio.to_thread(closing.join, CLOSE_SECONDS)

    def _new_span(self, trace_id: str) -> TraceParent:
        return TraceParent(trace_id, f"{self._ids.generate_span_id():016x}", is_sampled=True)

    def _send_child(
        self, name: str, times: Times, parent: SpanContext, links: Sequence[TraceParent] = ()
    ) -> None:
        span_id = self._ids.generate_span_id()
        span = SpanContext(parent.trace_id, span_id, is_remote=False, trace_flags=FLAGS[True])
        self._send(name, span, times, parent, links=links)

    def _send(  # noqa: PLR0913 (what there is to say of a span)
        self,
        name: str,
        span: SpanContext,
        times: Times,
        parent: SpanContext | None = None,
        *,
        links: Sequence[TraceParent] = (),
        attributes: Attributes | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        status: Status = UNSET,
    ) -> None:
        if self._accepted - self._exporter.taken >= self._max_waiting:
            self._refused += 1
            return
        self._accepted += 1
        started, ended = times
        self._processor.on_end(
            ReadableSpan(
                name,
                context=span,
                parent=parent,
                resource=self._resource,
                attributes=attributes,
                links=[Link(_context(link)) for link in links],
                kind=kind,
                status=status,
                start_time=started,
                end_time=ended,
                instrumentation_scope=self._scope,
            )
        )


class _WallClock:
    """Tells the time of day of what was measured by a clock that is never set.

    One for all spans of a call: the time of day may be set between them.
    """

    def __init__(self) -> None:
        self._offset = time.time_ns() - time.perf_counter_ns()

    def times(self, started: float, seconds: float) -> Times:
        """Return the times of what began at a time of time.perf_counter.

        Or of time.monotonic, which is the same clock where uvloop runs.
        """
        begin = round(started * 1e9) + self._offset
        return begin, begin + round(seconds * 1e9)


class _OnlyResource(Resource):
    """A resource beside which there is no other.

    The SDK puts the spans of each together by its hash, which for its own is that of a JSON text.
    """

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)


def _resource() -> Resource:
    """Return what all spans are of, as OpenTelemetry's variables say; the rest as it is."""
    given = Resource.create({SERVICE_VERSION: version(PACKAGE)})
    if str(given.attributes[SERVICE_NAME]).startswith(NO_NAME):
        given = given.merge(Resource({SERVICE_NAME: PACKAGE}))
    return _OnlyResource(given.attributes, given.schema_url)


def _context(span: TraceParent, *, is_remote: bool = False) -> SpanContext:
    return SpanContext(
        int(span.trace_id, 16), int(span.span_id, 16), is_remote, FLAGS[span.is_sampled]
    )


def _attributes(record: CallRecord) -> Attributes:
    """Return what a call's span says of it, by the semantic conventions where these have it."""
    service, _, method = record.method.removeprefix("/").partition("/")
    attributes: Attributes = {
        "rpc.system": record.transport,
        "rpc.service": service,
        "rpc.method": method,
        "rpc.grpc.status_code": code_pb2.Code.Value(record.status),
        "forward.request_id": record.request_id,
        "forward.images": record.images,
        "network.peer.address": record.peer,
    }
    if record.model:
        attributes["forward.model.name"] = record.model
        attributes["forward.model.version"] = record.model_version
    if record.status in SERVER_FAILURES:
        attributes["error.type"] = record.status
    return attributes
