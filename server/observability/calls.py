"""One record of each call: made when it begins, and at its end given to whoever reports of calls.

Every transport makes them, but for the lane of the native transport, which counts by itself and
hands over the records of some calls.
"""

import re
import time
from collections.abc import Callable, Iterable
from random import Random
from typing import Final, Literal, NamedTuple

import structlog

from server.errors import Rejection
from server.observability.engine_metrics import BATCHERS, BatcherName
from server.observability.metrics import ServerMetrics

REQUEST_ID: Final = "x-request-id"
TRACEPARENT: Final = "traceparent"
ACCEPTED_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
# https://www.w3.org/TR/trace-context: a later version may have more after the flags.
TRACEPARENT_FORM = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?"
)
SAMPLED = 1  # a flag of it
# Failures that are the server's, by OpenTelemetry's semantic conventions for servers of gRPC.
SERVER_FAILURES = frozenset(
    ("UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS")
)

Transport = Literal["grpc", "http"]
Metadata = Iterable[tuple[str, str | bytes]]
EndCallback = Callable[["CallRecord"], None]

log = structlog.get_logger()
_random = Random()  # noqa: S311 (ids and samples are no secrets)


class TraceParent(NamedTuple):
    """The span of the caller that a call belongs to."""

    trace_id: str  # 32 hexadecimal digits
    span_id: str  # 16
    is_sampled: bool


class CallRecord:
    """What is known of one call; of a stream, sums over its messages.

    Attributes:
        method: "/forward.v1.ForwardService/Predict"; "unknown" for one that is not there.
        started: when it began, a time of time.perf_counter.
        images: those that were right.
        queue_seconds: that they waited for their runs.
        run_seconds: of these runs, which other requests may have shared.
        encode_seconds: that it took to make the responses.
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
        "batcher",
        "encode_seconds",
        "encoding_since",
        "images",
        "method",
        "model",
        "model_version",
        "pack_seconds",
        "queue_seconds",
        "rejection",
        "request_bytes",
        "request_id",
        "response_bytes",
        "run_seconds",
        "seconds",
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
        request_id: str,
        traceparent: TraceParent | None = None,
    ) -> None:
        self.method = method
        self.transport = transport
        self._peer = peer
        self.request_id = request_id
        self.traceparent = traceparent
        self.started = time.perf_counter()
        self.images = self.request_bytes = self.response_bytes = self.model_version = 0
        self.queue_seconds = self.run_seconds = self.encode_seconds = self.seconds = 0.0
        self.pack_seconds = self.encoding_since = 0.0
        self.model = self.trace_detail = self.status = ""
        self.batcher: BatcherName | None = None
        self.rejection: Rejection | None = None

    @property
    def peer(self) -> str:
        """Where the call comes from; to ask gRPC takes a while, so it is asked when it matters."""
        if not isinstance(self._peer, str):
            self._peer = self._peer()
        return self._peer

    def asked(self, identity: tuple[str, int, str], images: int = 0) -> None:
        """Note name, version and runtime of the model that is asked, and images for it."""
        self.model, self.model_version, _ = identity
        self.images += images

    def ran(self, batcher: BatcherName, queue_seconds: float, run_seconds: float) -> None:
        """Note a run; from now on its response is made, if it was not packed where the run was."""
        self.batcher = batcher
        self.queue_seconds += queue_seconds
        self.run_seconds += run_seconds - self.pack_seconds
        self.encoding_since = time.perf_counter() - self.pack_seconds

    def encoded(self, response_bytes: int) -> float:
        """Note that a response is made; return the seconds that it took, 0 if nothing was run."""
        self.response_bytes += response_bytes
        if not self.encoding_since:
            return 0.0
        seconds = time.perf_counter() - self.encoding_since
        self.encode_seconds += seconds
        return seconds


def read_identity(metadata: Metadata) -> tuple[str, TraceParent | None]:
    """Return the id of a request, as it came or made, and the span that it belongs to."""
    request_id, traceparent = "", None
    for key, value in metadata:
        if key == REQUEST_ID and isinstance(value, str) and ACCEPTED_ID.fullmatch(value):
            request_id = value
        elif key == TRACEPARENT and isinstance(value, str):
            traceparent = parse_traceparent(value)
    return request_id or make_request_id(), traceparent


def make_request_id() -> str:
    """Return an id of 32 hexadecimal digits that no other request has; it is no secret."""
    return f"{_random.getrandbits(128):032x}"


def parse_traceparent(value: str) -> TraceParent | None:
    """Return the span of a `traceparent`; None if it is none."""
    found = TRACEPARENT_FORM.fullmatch(value)
    if found is None or (value.startswith("00") and found[4]):
        return None
    return TraceParent(found[1], found[2], bool(int(found[3], 16) & SAMPLED))


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
        self._encode_seconds = {
            name: metrics.engine.batcher(name).encode_seconds for name in BATCHERS
        }
        self._log_share = log_share
        self._callbacks: list[EndCallback] = []

    def add_end_callback(self, callback: EndCallback) -> None:
        """Call back with the record of each call that has ended."""
        self._callbacks.append(callback)

    def begin(
        self,
        method: str,
        transport: Transport,
        peer: str | Callable[[], str],
        metadata: Metadata | None,
    ) -> CallRecord:
        """Return the record of a call that begins now, and ends with `end`."""
        record = CallRecord(method, transport, peer, *read_identity(metadata or ()))
        self.running.add(record)
        return record

    def start(self, record: CallRecord) -> None:
        """Take a call whose record there is already, as `begin`."""
        self.running.add(record)

    def encoded(self, record: CallRecord, response_bytes: int) -> None:
        """Note that a response of a call is made, of so many bytes."""
        seconds = record.encoded(response_bytes)
        if record.batcher is not None:
            self._encode_seconds[record.batcher].observe(seconds)

    def end(self, record: CallRecord, status: str) -> None:
        """Report of a call that ends now with a status, before its caller can know it."""
        record.status = status
        seconds = record.seconds = time.perf_counter() - record.started
        self.running.discard(record)
        if record.transport == "grpc":
            self._calls.method(record.method).observe(status, seconds)
        if status != "OK":
            self._calls.reject(status, record.rejection)
        elif record.trace_detail:
            self._calls.observe_trace(record.trace_detail, record.response_bytes)
        if status in SERVER_FAILURES or (self._log_share and _random.random() < self._log_share):
            log_call(record)
        for callback in self._callbacks:
            callback(record)

    def observe_lane(self, record: CallRecord, *, is_logged: bool = True) -> None:
        """Report of a call that ended in the lane of the native transport, which has counted it.

        `status` and `seconds` are set. `is_logged`: it is for the log, too.
        """
        if is_logged:
            log_call(record)
        for callback in self._callbacks:
            callback(record)


def log_call(record: CallRecord) -> None:
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
        trace_id=record.traceparent.trace_id if record.traceparent else None,
        model=record.model or None,
        version=record.model_version or None,
        transport=record.transport,
    )


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 3)
