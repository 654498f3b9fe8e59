"""Prometheus metrics. Labels come from fixed sets, never from a client."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from server.observability.histogram import BufferedHistogram, Observations
from server.observability.supervision import TASKS, Task

# Seconds, from a forward of one image to a full batch on a busy machine.
SECONDS_BUCKETS = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10,
)  # fmt: skip
IMAGES_BUCKETS = tuple(2**power for power in range(13))
GRPC_LABELS = ("grpc_service", "grpc_method", "grpc_type")
HTTP_LABELS = ("http_route",)
FILES_ROUTE = "/"  # counts the files of the page, and what is not there
BATCHER_LABELS = ("batcher",)
BatcherName = Literal["predict", "trace"]
BATCHERS: tuple[BatcherName, ...] = get_args(BatcherName)


@dataclass(frozen=True)
class BatcherMetrics:
    """The metrics of one batcher."""

    images: Counter
    run_images: Observations
    run_seconds: Observations
    queue_seconds: Observations

    def observe_run(self, images: int, seconds: float) -> None:
        """Count a run, which several requests may have shared."""
        self.images.inc(images)
        self.run_images.observe(images)
        self.run_seconds.observe(seconds)


@dataclass(frozen=True)
class MethodMetrics:
    """The metrics of one method."""

    handled: Mapping[str, Counter]  # by status code
    seconds: Observations

    def add(self, counts: Mapping[str, int], buckets: Sequence[int], seconds: float) -> None:
        """Count in calls by their status codes, and their times by buckets and in all."""
        for code, count in counts.items():
            self.handled[code].inc(count)
        self.seconds.add(buckets, seconds)

    def observe(self, code: str, started: float) -> None:
        """Count a call that ends now and began at `started`, a time of time.perf_counter."""
        self.handled[code].inc()
        self.seconds.observe(time.perf_counter() - started)


class HttpMetrics:
    """The metrics of HTTP requests, by their routes."""

    def __init__(self, handled: Counter, seconds: BufferedHistogram, routes: Iterable[str]) -> None:
        self._handled = handled
        self._seconds = {route: seconds.labels(route) for route in routes}
        for route in self._seconds:
            handled.labels(route, "200")

    def observe(self, route: str, status: int, started: float) -> None:
        """Count a request that ends now and began at `started`, a time of time.perf_counter."""
        self._handled.labels(route, str(status)).inc()
        self._seconds[route].observe(time.perf_counter() - started)


class ModelInfo(Collector):
    """The gauge that names the served model: always one series, whatever was served before."""

    LABELS = ("model", "version", "runtime", "device", "provider")

    def __init__(self, registry: CollectorRegistry) -> None:
        self.labels: tuple[str, ...] | None = None
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """Yield the family."""
        family = GaugeMetricFamily(
            "forward_model_info", "The served model; always 1.", labels=self.LABELS
        )
        if self.labels is not None:
            family.add_metric(self.labels, 1)
        yield family


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
        for callback in self.callbacks:
            callback()
        return ()


class DroppedLines(Collector):
    """The count of log lines that could not be written, which is read when it is scraped."""

    def __init__(self, dropped: Callable[[], int], registry: CollectorRegistry) -> None:
        self._dropped = dropped
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """Yield the family."""
        text = "Lines of the log that could not be written and were dropped."
        yield CounterMetricFamily("forward_log_lines_dropped", text, self._dropped())


class ServerMetrics:
    """The metrics of one server, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self._before_scrape = BeforeScrape(registry)
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        counter = partial(Counter, registry=registry)
        gauge = partial(Gauge, registry=registry)
        seconds = partial(BufferedHistogram, bounds=SECONDS_BUCKETS, registry=registry)
        labels = (*GRPC_LABELS, "grpc_code")
        self._handled = counter("grpc_server_handled", "Calls completed, by status code.", labels)
        text = "Time of a call's handler, until its response is ready or its stream has ended."
        self._handling_seconds = seconds("grpc_server_handling_seconds", text, GRPC_LABELS)
        self._images = counter("forward_images", "Images computed.", BATCHER_LABELS)
        text = "Time that a request waited for its run."
        self._queue_seconds = seconds("forward_queue_seconds", text, BATCHER_LABELS)
        text = "Time of a run of the runtime."
        self._run_seconds = seconds("forward_run_seconds", text, BATCHER_LABELS)
        text = "Images in a run of the runtime."
        self._run_images = BufferedHistogram(
            "forward_run_images", text, BATCHER_LABELS, IMAGES_BUCKETS, registry
        )
        self._queue_images = gauge("forward_queue_images", "Images that wait or run.")
        self._model_info = ModelInfo(registry)
        text = "What carries gRPC, python or native; always 1."
        self._transport_info = gauge("forward_transport_info", text, ("transport",))
        text = "Whether the native transport answers Predict itself, in its lane."
        self._lane_on = gauge("forward_lane_on", text)
        text = "Calls that ended in the native transport's lane; other metrics have them too."
        self.lane_calls = counter("forward_lane_calls", text, GRPC_LABELS[:2])
        text = "Versions that took the place of another, and that failed to."
        self._reloads = counter("forward_model_reloads", text, ("result",))
        text = "Whether the version is served that should be."
        self._last_reload_successful = gauge("forward_model_last_reload_successful", text)
        text = "When the served version was loaded."
        self._last_reload_success = gauge(
            "forward_model_last_reload_success_timestamp_seconds", text
        )
        text = "Failures of what goes on beside the calls."
        self._background_failures = counter("forward_background_failures", text, ("task",))
        self._unauthenticated: dict[str, Counter] = {}  # by "/service/method"
        self._methods: dict[str, MethodMetrics] = {}  # as well
        self._create_series()

    def _create_series(self) -> None:
        """Create the series that are to be there, at 0, before anything happens."""
        for result in ("success", "failure"):
            self._reloads.labels(result)
        for task in TASKS:
            self._background_failures.labels(task)
        for batcher in BATCHERS:
            self.batcher(batcher)

    def register_method(
        self, service: str, method: str, kind: str, codes: Iterable[str]
    ) -> MethodMetrics:
        """Return the metrics of a method, whose series are there from now on."""
        labels = (service, method, kind)
        handled = {code: self._handled.labels(*labels, code) for code in codes}
        self._unauthenticated[f"/{service}/{method}"] = handled["UNAUTHENTICATED"]
        found = MethodMetrics(handled, self._handling_seconds.labels(*labels))
        self._methods[f"/{service}/{method}"] = found
        self.lane_calls.labels(service, method)  # also where there is no lane: 0
        return found

    def method(self, path: str) -> MethodMetrics:
        """Return the metrics of a registered method, by "/service/method"."""
        return self._methods[path]

    def register_routes(self, routes: Iterable[str]) -> HttpMetrics:
        """Return the metrics of HTTP requests to routes, whose series are there from now on."""
        text = "HTTP requests completed, by status code; 499: the client closed it."
        labels = (*HTTP_LABELS, "http_code")
        handled = Counter("forward_http_requests", text, labels, registry=self.registry)
        text = "Time of an HTTP request, until its response has been sent."
        seconds = BufferedHistogram(
            "forward_http_request_seconds", text, HTTP_LABELS, SECONDS_BUCKETS, self.registry
        )
        return HttpMetrics(handled, seconds, routes)

    def count_unauthenticated(self, path: str) -> None:
        """Count a call that was refused before its handler, by "/service/method" as it came."""
        if path in self._unauthenticated:  # labels never come from a client
            self._unauthenticated[path].inc()

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
        for name, is_current in are_current.items():
            gauge.labels(name).set_function(is_current)

    def watch_log(self, dropped: Callable[[], int]) -> None:
        """Read how many lines of the log were dropped whenever the metrics are scraped."""
        DroppedLines(dropped, self.registry)

    def count_failure(self, task: Task) -> None:
        """Count a failure of what goes on in the background."""
        self._background_failures.labels(task).inc()

    def batcher(self, batcher: BatcherName) -> BatcherMetrics:
        """Return the metrics of a batcher."""
        return BatcherMetrics(
            self._images.labels(batcher),
            self._run_images.labels(batcher),
            self._run_seconds.labels(batcher),
            self._queue_seconds.labels(batcher),
        )

    def add_scrape_callback(self, callback: Callable[[], None]) -> None:
        """Call back, in the thread of the scrape, before the metrics are read."""
        self._before_scrape.callbacks.append(callback)

    def watch_queue(self, queued_images: Callable[[], int]) -> None:
        """Read the queue's length whenever the metrics are scraped."""
        self._queue_images.set_function(queued_images)

    def set_model(
        self, *, name: str, version: int, runtime: str, device: str, provider: str
    ) -> None:
        """Publish which model is served from now on, by what."""
        self._model_info.labels = (name, str(version), runtime, device, provider)
        self._last_reload_success.set_to_current_time()

    def set_transport(self, name: str) -> None:
        """Publish what carries gRPC: python or native."""
        self._transport_info.labels(name).set(1)

    def set_lane(self, *, is_on: bool) -> None:
        """Publish whether the native transport answers Predict itself."""
        self._lane_on.set(is_on)

    def record_poll(self, *, loaded: bool, failed: int, is_well: bool) -> None:
        """Count what a poll of the repository did."""
        self._reloads.labels("success").inc(loaded)
        self._reloads.labels("failure").inc(failed)
        self._last_reload_successful.set(is_well)
