"""Prometheus metrics. Labels come from fixed sets, never from a client."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Literal, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.gc_collector import GCCollector
from prometheus_client.metrics_core import CounterMetricFamily, Metric
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from server.observability.call_metrics import CallMetrics
from server.observability.connections import ConnectionMetrics
from server.observability.drift import DriftMetrics
from server.observability.engine_metrics import EngineMetrics
from server.observability.http_metrics import HttpMetrics
from server.observability.model_metrics import ModelMetrics
from server.observability.supervision import TASKS, Task

SpanLoss = Literal["queue_full", "export_failed"]
SPAN_LOSSES: tuple[SpanLoss, ...] = get_args(SpanLoss)


class BeforeScrape(Collector):
    """Calls back before the other metrics are collected, for it is registered before them."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.callbacks: list[Callable[[], None]] = []
        registry.register(self)

    def describe(self) -> Iterable[Metric]:
        """Return nothing; the registry would collect to find out."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Call back; there is nothing to yield."""
        self.call()
        return ()

    def call(self) -> None:
        """Call back."""
        for callback in self.callbacks:
            callback()


class ReadCounter(Collector):
    """A count that is kept elsewhere, and read when it is scraped."""

    def __init__(
        self, name: str, text: str, count: Callable[[], int], registry: CollectorRegistry
    ) -> None:
        self._name, self._text, self._count = name, text, count
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """Yield the family."""
        yield CounterMetricFamily(self._name, self._text, self._count())


class ReadLosses(Collector):
    """Counts by the reason of what was lost, which are kept elsewhere, and read when scraped."""

    def __init__(
        self,
        name: str,
        text: str,
        counts: Mapping[SpanLoss, Callable[[], int]],
        registry: CollectorRegistry,
    ) -> None:
        self._name, self._text, self._counts = name, text, counts
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """Yield the family."""
        family = CounterMetricFamily(self._name, self._text, labels=("reason",))
        for reason, count in self._counts.items():
            family.add_metric((reason,), count())
        yield family


class ServerMetrics:
    """The metrics of one server, in a registry of its own.

    Attributes:
        calls: of the calls of every transport.
        engine: of runs, batches and the queue.
        model: of the served model.
        connections: of the transports that can tell.
    """

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self._before_scrape = BeforeScrape(registry)
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=registry)
        self.calls = CallMetrics(registry)
        self.engine = EngineMetrics(registry)
        self.model = ModelMetrics(registry)
        self.connections = ConnectionMetrics(registry)
        gauge = partial(Gauge, registry=registry)
        text = "What carries gRPC, python or native; always 1."
        self._transport_info = gauge("forward_transport_info", text, ("transport",))
        text = "Whether the native transport answers Predict itself, in its lane."
        self._lane_on = gauge("forward_lane_on", text)
        text = "Failures of what goes on beside the calls."
        self._background_failures = Counter(
            "forward_background_failures", text, ("task",), registry=registry
        )
        self.drift = DriftMetrics(registry)
        for task in TASKS:
            self._background_failures.labels(task)

    def register_routes(self, routes: Iterable[str]) -> HttpMetrics:
        """Return the metrics of HTTP requests to routes, whose series are there from now on."""
        return HttpMetrics(routes, self.registry)

    def watch_certificate(self, expiry_timestamp: Callable[[], float]) -> None:
        """Read when the certificate expires whenever the metrics are scraped."""
        text = "When the TLS certificate in use expires, in seconds since 1970."
        name = "forward_tls_certificate_expiry_timestamp_seconds"
        Gauge(name, text, registry=self.registry).set_function(expiry_timestamp)

    def watch_files(self, are_current: Mapping[str, Callable[[], bool]]) -> None:
        """Read whether files are used as they are now, by what they hold."""
        text = "Whether certificates or tokens are used as their files have them."
        name = "forward_files_last_reload_successful"
        gauge = Gauge(name, text, ("files",), registry=self.registry)
        for files, is_current in are_current.items():
            gauge.labels(files).set_function(is_current)

    def watch_log(self, dropped: Callable[[], int]) -> None:
        """Read how many lines of the log were dropped whenever the metrics are scraped."""
        text = "Lines of the log that could not be written and were dropped."
        ReadCounter("forward_log_lines_dropped", text, dropped, self.registry)

    def watch_lane_observations(self, dropped: Callable[[], int]) -> None:
        """Read how many calls of the lane the log and tracing did not get, at each scrape."""
        text = "Calls of the lane that the log and tracing should have got, and did not."
        ReadCounter("forward_lane_observations_dropped", text, dropped, self.registry)

    def watch_spans(self, dropped: Callable[[SpanLoss], int]) -> None:
        """Read how many spans were lost whenever the metrics are scraped."""
        counts = {reason: partial(dropped, reason) for reason in SPAN_LOSSES}
        ReadLosses("forward_spans_dropped", "Spans that were lost.", counts, self.registry)

    def count_failure(self, task: Task) -> None:
        """Count a failure of what goes on in the background."""
        self._background_failures.labels(task).inc()

    def add_scrape_callback(self, callback: Callable[[], None]) -> None:
        """Call back, in the thread of who reads the metrics, before they are read."""
        self._before_scrape.callbacks.append(callback)

    def update(self) -> None:
        """Count in what is counted elsewhere, as before a scrape, for who reads without one."""
        self._before_scrape.call()

    def set_transport(self, name: str) -> None:
        """Publish what carries gRPC: python or native."""
        self._transport_info.labels(name).set(1)

    def set_lane(self, *, is_on: bool) -> None:
        """Publish whether the native transport answers Predict itself."""
        self._lane_on.set(is_on)
