"""One record of each call: made when it begins, and at its end given to whoever reports of calls.

Every transport makes them, but for the lane of the native transport, which counts by itself and
hands over the records of some calls.
"""

import time
from collections.abc import Callable

from server.observability.access_log import AccessLog
from server.observability.call_metrics import MethodMetrics
from server.observability.metrics import ServerMetrics
from server.observability.records import CallRecord, Transport
from server.observability.request_id import Identity
from server.observability.tracing import CallTracer

EndCallback = Callable[[CallRecord], None]


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
        self.log = AccessLog(log_share)
        self._callbacks: list[EndCallback] = []
        self.tracer: CallTracer | None = None

    def add_end_callback(self, callback: EndCallback) -> None:
        """Call back with the record of each call that has ended."""
        self._callbacks.append(callback)

    def trace_calls(self, tracer: CallTracer) -> None:
        """Let a tracer make spans of the calls that begin from now on."""
        self.tracer = tracer
        self.add_end_callback(tracer.end)
        self.metrics.watch_spans(tracer.dropped)

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
        if self.log.chooses(status):
            self.log.add(record)
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
            self.log.add(record)
        for callback in self._callbacks:
            callback(record)

    async def close(self) -> None:
        """Hand out what waits: the lines of the log, and the spans if their receiver takes them."""
        self.log.flush()
        if self.tracer is not None:
            await self.tracer.close()

    @staticmethod
    def _note_exemplar(record: CallRecord, method: MethodMetrics) -> None:
        trace = record.span or record.traceparent
        if trace is not None and trace.is_sampled:
            method.seconds.note_exemplar(record.seconds, trace.trace_id)
