"""Metrics of calls: how many ended how, how long they took, which were refused and why."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from threading import Lock
from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.metrics_core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from server.errors import Rejection
from server.observability.buckets import SECONDS_BUCKETS
from server.observability.histogram import BufferedHistogram, Observations

GRPC_LABELS = ("grpc_service", "grpc_method", "grpc_type")
UNKNOWN_METHOD = "unknown"  # the name of every method that is not there
# What alerts and rates are made of: at 0 from the start. The others come when they happen.
EXPECTED_CODES = (
    *("OK", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "INTERNAL"),
    "UNAVAILABLE",
)
UNAUTHENTICATED = "UNAUTHENTICATED"  # expected where calls need a token
REJECTIONS: tuple[Rejection, ...] = get_args(Rejection)
REJECTION_OF_STATUS: Mapping[str, Rejection] = {
    "UNAUTHENTICATED": "unauthenticated",
    "DEADLINE_EXCEEDED": "deadline_exceeded",
    "INVALID_ARGUMENT": "invalid_argument",
    "NOT_FOUND": "not_found",
}
TRACE_DETAILS = ("statistics", "top_k", "units", "full")


class MethodMetrics:
    """The metrics of one method; the event loop counts, and other threads may add."""

    def __init__(self, labels: Sequence[str], seconds: Observations) -> None:
        self.labels = tuple(labels)
        self.seconds = seconds
        self._handled = dict.fromkeys(EXPECTED_CODES, 0)  # by status code
        self._added: dict[str, int] = {}  # likewise, by other threads
        self._lock = Lock()  # of what is added

    def observe(self, code: str, seconds: float) -> None:
        """Count a call of so many seconds."""
        self._handled[code] = self._handled.get(code, 0) + 1
        self.seconds.observe(seconds)

    def expect(self, code: str) -> None:
        """Show a status code also while no call has ended with it."""
        self._handled.setdefault(code, 0)

    def add(
        self, counts: Mapping[str, int], buckets: Sequence[int] = (), seconds: float = 0.0
    ) -> None:
        """Count in calls by their status codes, and their times by buckets and in all, if known."""
        with self._lock:
            for code, count in counts.items():
                if count or code in self._handled:
                    self._added[code] = self._added.get(code, 0) + count
        if buckets:
            self.seconds.add(buckets, seconds)

    def handled(self) -> Mapping[str, int]:
        """Return how many calls have ended with each status code."""
        found = dict(self._handled)
        with self._lock:
            for code, count in self._added.items():
                found[code] = found.get(code, 0) + count
        return found


class _Handled(Collector):
    """The count of calls by status code, which is put together when it is scraped."""

    def __init__(self, methods: Mapping[str, MethodMetrics], registry: CollectorRegistry) -> None:
        self._methods = methods
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """Yield the family."""
        labels = (*GRPC_LABELS, "grpc_code")
        text = "Calls completed, by status code."
        family = CounterMetricFamily("grpc_server_handled", text, labels=labels)
        for method in list(self._methods.values()):
            for code, count in method.handled().items():
                family.add_metric((*method.labels, code), count)
        yield family


class CallMetrics:
    """The metrics of the calls of every transport."""

    def __init__(self, registry: CollectorRegistry) -> None:
        counter = partial(Counter, registry=registry)
        self._methods: dict[str, MethodMetrics] = {}  # by "/service/method"
        _Handled(self._methods, registry)
        text = "Time of a call's handler, until its response is ready or its stream has ended."
        self._seconds = BufferedHistogram(
            "grpc_server_handling_seconds", text, GRPC_LABELS, SECONDS_BUCKETS, registry
        )
        text = "Calls that ended in the native transport's lane; other metrics have them too."
        self.lane_calls = counter("forward_lane_calls", text, GRPC_LABELS[:2])
        text = "Calls that were refused, or not computed in time, by the reason."
        self.rejected = counter("forward_rejected", text, ("reason",))
        text = "Calls that have begun and not ended."
        self._in_flight = Gauge("forward_calls_in_flight", text, registry=registry)
        self._in_flight_parts: list[Callable[[], int]] = []
        self._in_flight.set_function(self.in_flight)
        text = "Responses of Trace, by the largest detail of a stage in them."
        self._trace_responses = counter("forward_trace_responses", text, ("detail",))
        text = "Bytes of the responses of Trace."
        self._trace_bytes = counter("forward_trace_response_bytes", text, ("detail",))
        for reason in REJECTIONS:
            self.rejected.labels(reason)
        for detail in TRACE_DETAILS:
            self._trace_responses.labels(detail)
            self._trace_bytes.labels(detail)

    def register_method(self, service: str, method: str, kind: str) -> MethodMetrics:
        """Return the metrics of a method, whose series are there from now on."""
        self.lane_calls.labels(service, method)  # also where there is no lane: 0
        return self._register(f"/{service}/{method}", (service, method, kind))

    def _register(self, path: str, labels: tuple[str, ...]) -> MethodMetrics:
        found = self._methods[path] = MethodMetrics(labels, self._seconds.labels(*labels))
        return found

    def expect_tokens(self) -> None:
        """Show how many calls of each method had no right token, from now on."""
        for method in self._methods.values():
            method.expect(UNAUTHENTICATED)

    def known(self, path: str) -> str:
        """Return a method's name: its "/service/method" if it is there, else UNKNOWN_METHOD."""
        return path if path in self._methods else UNKNOWN_METHOD

    def is_unary(self, path: str) -> bool:
        """Tell if a method has one request and one response, by "/service/method"."""
        return self.method(path).labels[-1] == "unary"

    def method(self, path: str) -> MethodMetrics:
        """Return the metrics of a method, by "/service/method"; of any unknown one together."""
        found = self._methods.get(path) or self._methods.get(UNKNOWN_METHOD)
        return found or self._register(UNKNOWN_METHOD, (UNKNOWN_METHOD,) * len(GRPC_LABELS))

    def add_in_flight(self, count: Callable[[], int]) -> None:
        """Read how many calls have begun and not ended, in one more place, at each scrape."""
        self._in_flight_parts.append(count)

    def in_flight(self) -> int:
        """Return how many calls have begun and not ended."""
        return sum(part() for part in self._in_flight_parts)

    def reject(self, status: str, rejection: Rejection | None) -> None:
        """Count a call that was refused, if it was, by why or else by its status."""
        if reason := rejection or REJECTION_OF_STATUS.get(status):
            self.rejected.labels(reason).inc()

    def observe_trace(self, detail: str, response_bytes: int) -> None:
        """Count a response of Trace."""
        self._trace_responses.labels(detail).inc()
        self._trace_bytes.labels(detail).inc(response_bytes)
