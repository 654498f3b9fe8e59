"""One record of each call: made when it begins, and at its end given to whoever reports of calls.

Every transport makes them, but for the lane of the native transport, which counts by itself and
hands over the records of some calls.
"""

import time
from collections.abc import Callable
from random import Random
from typing import Literal, Protocol

import structlog

from server.errors import Rejection
from server.observability.access_log import SERVER_FAILURES, log_call
from server.observability.call_metrics import MethodMetrics
from server.observability.engine_metrics import BatcherName
from server.observability.metrics import ServerMetrics
from server.observability.request_id import Identity, make_request_id
from server.observability.runs import Run
from server.observability.traceparent import TraceParent

Transport = Literal["grpc", "http"]
# What a call waits for: its request, a place in a run, the run, its response, the client; of a
# stream, its latest message.
Phase = Literal["read", "queue", "run", "encode", "write"]
EndCallback = Callable[["CallRecord"], None]

_random = Random()  # noqa: S311 (a sample is no secret)


class CallRecord:
    """What is known of one call; of a stream, sums over its messages.

    Attributes:
        method: "/forward.v1.ForwardService/Predict"; "unknown" for one that is not there.
        started: when it began, a time of time.perf_counter.
        span: its own, if it is traced.
        images: those that were right.
        queue_seconds: that they waited for their runs.
        run_seconds: of these runs, which other requests may have shared.
        run: that of the request; None of a stream.
        encode_seconds: that it took to make the responses, the last of which from
            `encode_started`, a time of time.perf_counter.
        batcher: what ran them; None: nothing did.
        model, model_version: that answered; "" and 0: none was asked.
        pack_seconds: that it took to make the response where its run was, which had ended.
        trace_detail: the largest of the stages in the response of a trace.
        rejection: why it was refused, where the status does not tell.
        status: the name of a grpc.StatusCode, from the end on; before it where it is known.
        seconds: from its begin to its end.
    """

    __slots__ = (
        "_peer",
        "_request_id",
        "batcher",
        "encode_seconds",
        "encode_started",
        "encoding_since",
        "images",
        "method",
        "model",
        "model_version",
        "observe_run",
        "pack_seconds",
        "phase",
        "queue_seconds",
        "rejection",
        "request_bytes",
        "response_bytes",
        "run",
        "run_seconds",
        "seconds",
        "span",
        "started",
        "status",
        "trace_detail",
        "traceparent",
        "transport",
    )

    def __init__(
        self,
        method: str,
        transport: Transport,
        peer: str | Callable[[], str],
        request_id: str = "",
        traceparent: TraceParent | None = None,
    ) -> None:
        self.method = method
        self.transport = transport
        self._peer = peer
        self._request_id = request_id
        self.traceparent = traceparent
        self.started = time.perf_counter()
        self.images = self.request_bytes = self.response_bytes = self.model_version = 0
        self.queue_seconds = self.run_seconds = self.encode_seconds = self.seconds = 0.0
        self.pack_seconds = self.encoding_since = self.encode_started = 0.0
        self.model = self.trace_detail = self.status = ""
        self.batcher: BatcherName | None = None
        self.phase: Phase = "read"
        self.run: Run | None = None
        self.span: TraceParent | None = None
        self.observe_run: Callable[[Run], None] | None = None
        self.rejection: Rejection | None = None

    @property
    def request_id(self) -> str:
        """The id of the request as it came, or made when somebody first asks."""
        if not self._request_id:
            self._request_id = make_request_id()
        return self._request_id

    @property
    def has_id(self) -> bool:
        """Tell whether the id came, or was made for somebody: the log, a span, an error."""
        return bool(self._request_id)

    @property
    def peer(self) -> str:
        """Where the call comes from; to ask gRPC takes a while, so it is asked when it matters."""
        if not isinstance(self._peer, str):
            self._peer = self._peer()
        return self._peer

    @property
    def trace_id(self) -> str | None:
        """The trace that the call belongs to, also where nobody records it."""
        span = self.span or self.traceparent
        return span.trace_id if span else None

    def asked(self, identity: tuple[str, int, str], images: int = 0) -> None:
        """Note name, version and runtime of the model that is asked, and images for it."""
        self.model, self.model_version, _ = identity
        self.images += images

    def ran(self, queue_seconds: float, run: Run, seconds: float | None = None) -> None:
        """Note a run; from now on its response is made, if it was not packed where the run was.

        `seconds` are those of the runtime, if the run did more than that.
        """
        self.phase = "encode"
        self.run = run if self.batcher is None else None
        self.batcher = run.batcher
        self.queue_seconds += queue_seconds
        self.run_seconds += run.seconds if seconds is None else seconds
        self.encoding_since = time.perf_counter() - self.pack_seconds
        if self.observe_run is not None:
            self.observe_run(run)

    def encoded(self, response_bytes: int) -> float:
        """Note that a response is made; return the seconds that it took, 0 if nothing was run."""
        self.response_bytes += response_bytes
        self.phase = "write"
        if not self.encoding_since:
            return 0.0
        seconds = time.perf_counter() - self.encoding_since
        self.encode_started = self.encoding_since
        self.encoding_since = 0.0  # the next response of a stream may be an error, of no run
        self.encode_seconds += seconds
        return seconds


class CallTracer(Protocol):
    """What makes spans of calls, and of their runs."""

    @property
    def root_share(self) -> float:
        """The share of the calls without a caller's span that are traced."""

    def sample(self, record: CallRecord, *, is_chosen: bool = False) -> None:
        """Give a call a span, if it is traced, and what is told of its runs.

        `is_chosen`: that share has been taken.
        """

    def end(self, record: CallRecord) -> None:
        """Take a call that has ended."""


class CallObserver:
    """Reports of calls when they end: in the metrics, in the log, and to whoever asked for it.

    All methods belong to one event loop.

    Args:
        metrics: count them.
        log_share: the share of calls that the log has, beside the server's own failures.
    """

    def __init__(self, metrics: ServerMetrics, log_share: float = 0.0) -> None:
        self.metrics = metrics
        self.running: set[CallRecord] = set()
        self._calls = metrics.calls
        self._calls.add_in_flight(lambda: len(self.running))
        self._log_share = log_share
        self._log = structlog.get_logger().bind()  # made once: else at every line
        self._callbacks: list[EndCallback] = []
        self.tracer: CallTracer | None = None

    def add_end_callback(self, callback: EndCallback) -> None:
        """Call back with the record of each call that has ended."""
        self._callbacks.append(callback)

    def trace_calls(self, tracer: CallTracer) -> None:
        """Let a tracer make spans of the calls that begin from now on."""
        self.tracer = tracer
        self.add_end_callback(tracer.end)

    def begin(
        self,
        method: str,
        transport: Transport,
        peer: str | Callable[[], str],
        identity: Identity,
    ) -> CallRecord:
        """Return the record of a call that begins now, and ends with `end`."""
        record = CallRecord(method, transport, peer, *identity)
        self.running.add(record)
        if self.tracer is not None:
            self.tracer.sample(record)
        return record

    def start(self, record: CallRecord) -> None:
        """Take a call whose record there is already, as `begin`."""
        self.running.add(record)
        if self.tracer is not None:
            self.tracer.sample(record)

    def encoded(self, record: CallRecord, response_bytes: int) -> None:
        """Note that a response of a call is made, of so many bytes."""
        seconds = record.encoded(response_bytes)
        if seconds and record.batcher is not None:
            batcher = self.metrics.engine.batcher(record.batcher, record.model_version)
            batcher.encode_seconds.observe(seconds)

    def end(self, record: CallRecord, status: str) -> None:
        """Report of a call that ends now with a status, before its caller can know it."""
        record.status = status
        seconds = record.seconds = time.perf_counter() - record.started
        self.running.discard(record)
        if record.transport == "grpc":
            method = self._calls.method(record.method)
            method.observe(status, seconds)
            if record.traceparent is not None or record.span is not None:
                self._note_exemplar(record, method)
        if status != "OK":
            self._calls.reject(status, record.rejection)
            version = record.model_version
            self.metrics.engine.fail(record.method, record.batcher, version, seconds)
        elif record.trace_detail:
            self._calls.observe_trace(record.trace_detail, record.response_bytes)
        if status in SERVER_FAILURES or (self._log_share and _random.random() < self._log_share):
            log_call(record, self._log)
        for callback in self._callbacks:
            callback(record)

    def sample(self, record: CallRecord, *, is_chosen: bool) -> None:
        """Give a call of the lane a span, if it is traced; see `CallTracer.sample`."""
        if self.tracer is not None:
            self.tracer.sample(record, is_chosen=is_chosen)

    def observe_lane(self, record: CallRecord, *, is_logged: bool = True) -> None:
        """Report of a call that ended in the lane of the native transport, which has counted it.

        `status` and `seconds` are set. `is_logged`: it is for the log, too.
        """
        self._note_exemplar(record, self._calls.method(record.method))
        if is_logged:
            log_call(record, self._log)
        for callback in self._callbacks:
            callback(record)

    @staticmethod
    def _note_exemplar(record: CallRecord, method: MethodMetrics) -> None:
        trace = record.span or record.traceparent
        if trace is not None and trace.is_sampled:
            method.seconds.note_exemplar(record.seconds, trace.trace_id)
