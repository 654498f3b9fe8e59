"""Prometheus metrics. Labels come from fixed sets, never from a client."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
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


class ModelInfo(Collector):
    """The gauge that names the served model: always one series, whatever was served before."""

    LABELS = ("model", "version", "runtime", "device", "provider")

    def __init__(self) -> None:
        self.labels: tuple[str, ...] | None = None

    def collect(self) -> Iterator[Metric]:
        """Yield the family."""
        family = GaugeMetricFamily(
            "forward_model_info", "The served model; always 1.", labels=self.LABELS
        )
        if self.labels is not None:
            family.add_metric(self.labels, 1)
        yield family


class DroppedLines(Collector):
    """The count of log lines that could not be written, which is read when it is scraped."""

    def __init__(self, dropped: Callable[[], int]) -> None:
        self._dropped = dropped

    def collect(self) -> Iterator[Metric]:
        """Yield the family."""
        text = "Lines of the log that could not be written and were dropped."
        yield CounterMetricFamily("forward_log_lines_dropped", text, self._dropped())


class ServerMetrics:
    """The metrics of one server, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self.handled = Counter(
            "grpc_server_handled",
            "Calls completed, by status code.",
            (*GRPC_LABELS, "grpc_code"),
            registry=self.registry,
        )
        self.handling_seconds = BufferedHistogram(
            "grpc_server_handling_seconds",
            "Time from the start of a call's handler to its answer.",
            GRPC_LABELS,
            SECONDS_BUCKETS,
        )
        self.registry.register(self.handling_seconds)
        self._images = Counter(
            "forward_images",
            "Images computed.",
            BATCHER_LABELS,
            registry=self.registry,
        )
        self._queue_seconds = BufferedHistogram(
            "forward_queue_seconds",
            "Time that a request waited for its run.",
            BATCHER_LABELS,
            SECONDS_BUCKETS,
        )
        self.registry.register(self._queue_seconds)
        self._run_seconds = BufferedHistogram(
            "forward_run_seconds", "Time of a run of the runtime.", BATCHER_LABELS, SECONDS_BUCKETS
        )
        self.registry.register(self._run_seconds)
        self._run_images = BufferedHistogram(
            "forward_run_images", "Images in a run of the runtime.", BATCHER_LABELS, IMAGES_BUCKETS
        )
        self.registry.register(self._run_images)
        self._queue_images = Gauge(
            "forward_queue_images",
            "Images that wait or run.",
            registry=self.registry,
        )
        self._model_info = ModelInfo()
        self.registry.register(self._model_info)
        self._reloads = Counter(
            "forward_model_reloads",
            "Versions that took the place of another, and that failed to.",
            ("result",),
            registry=self.registry,
        )
        self._unauthenticated: dict[str, Counter] = {}
        self._last_reload_successful = Gauge(
            "forward_model_last_reload_successful",
            "Whether the version is served that should be.",
            registry=self.registry,
        )
        self._last_reload_success = Gauge(
            "forward_model_last_reload_success_timestamp_seconds",
            "When the served version was loaded.",
            registry=self.registry,
        )
        self._background_failures = Counter(
            "forward_background_failures",
            "Failures of what goes on beside the calls.",
            ("task",),
            registry=self.registry,
        )
        for result in ("success", "failure"):  # series that are there before the first call
            self._reloads.labels(result)
        for task in TASKS:
            self._background_failures.labels(task)
        for batcher in BATCHERS:
            self.batcher(batcher)

    def handled_of(
        self, service: str, method: str, kind: str, codes: Iterable[str]
    ) -> dict[str, Counter]:
        """Return a method's counts of calls, by status code."""
        counts = {code: self.handled.labels(service, method, kind, code) for code in codes}
        self._unauthenticated[f"/{service}/{method}"] = counts["UNAUTHENTICATED"]
        return counts

    def count_unauthenticated(self, path: str) -> None:
        """Count a call that was refused before its handler, by "/service/method" as it came."""
        if path in self._unauthenticated:  # labels never come from a client
            self._unauthenticated[path].inc()

    def watch_certificate(self, expiry_timestamp: Callable[[], float]) -> None:
        """Read when the certificate expires whenever the metrics are scraped."""
        Gauge(
            "forward_tls_certificate_expiry_timestamp_seconds",
            "When the TLS certificate in use expires, in seconds since 1970.",
            registry=self.registry,
        ).set_function(expiry_timestamp)

    def watch_files(self, are_current: Mapping[str, Callable[[], bool]]) -> None:
        """Read whether files are used as they are now, by what they hold."""
        gauge = Gauge(
            "forward_files_last_reload_successful",
            "Whether certificates or tokens are used as their files have them.",
            ("files",),
            registry=self.registry,
        )
        for name, is_current in are_current.items():
            gauge.labels(name).set_function(is_current)

    def watch_log(self, dropped: Callable[[], int]) -> None:
        """Read how many lines of the log were dropped whenever the metrics are scraped."""
        self.registry.register(DroppedLines(dropped))

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

    def watch_queue(self, queued_images: Callable[[], int]) -> None:
        """Read the queue's length whenever the metrics are scraped."""
        self._queue_images.set_function(queued_images)

    def show_model(
        self, *, name: str, version: int, runtime: str, device: str, provider: str
    ) -> None:
        """Publish which model is served from now on, by what."""
        self._model_info.labels = (name, str(version), runtime, device, provider)
        self._last_reload_success.set_to_current_time()

    def observe_look(self, *, loaded: bool, failed: int, is_well: bool) -> None:
        """Count what a look for another version found."""
        self._reloads.labels("success").inc(loaded)
        self._reloads.labels("failure").inc(failed)
        self._last_reload_successful.set(is_well)
