"""Prometheus metrics. Labels come from fixed sets, never from a client."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from server.models import ServedModel

# Seconds, from a forward of one image to a full batch on a busy machine.
SECONDS_BUCKETS = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10,
)  # fmt: skip
GRPC_LABELS = ("grpc_service", "grpc_method", "grpc_type")


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
        self.handling_seconds = Histogram(
            "grpc_server_handling_seconds",
            "Time from the start of a call's handler to its answer.",
            GRPC_LABELS,
            buckets=SECONDS_BUCKETS,
            registry=self.registry,
        )
        self.images = Counter(
            "forward_images",
            "Images computed.",
            ("grpc_method",),
            registry=self.registry,
        )
        self.queue_seconds = Histogram(
            "forward_queue_seconds",
            "Time that a request waited for its run.",
            ("grpc_method",),
            buckets=SECONDS_BUCKETS,
            registry=self.registry,
        )
        self.run_seconds = Histogram(
            "forward_run_seconds",
            "Time of a run of the runtime.",
            ("grpc_method",),
            buckets=SECONDS_BUCKETS,
            registry=self.registry,
        )
        self._queue_images = Gauge(
            "forward_queue_images",
            "Images that wait or run.",
            registry=self.registry,
        )
        self._model_info = Gauge(
            "forward_model_info",
            "The served model; always 1.",
            ("model", "version", "runtime", "device", "provider"),
            registry=self.registry,
        )

        for method in ("Predict", "Trace"):  # series that are there before the first call
            for metric in (self.images, self.queue_seconds, self.run_seconds):
                metric.labels(method)

    def observe_run(
        self, method: str, images: int, queue_seconds: float, run_seconds: float
    ) -> None:
        """Count a run of a method."""
        self.images.labels(method).inc(images)
        self.queue_seconds.labels(method).observe(queue_seconds)
        self.run_seconds.labels(method).observe(run_seconds)

    def watch_queue(self, queued_images: Callable[[], int]) -> None:
        """Read the queue's length whenever the metrics are scraped."""
        self._queue_images.set_function(queued_images)

    def show_model(self, model: ServedModel) -> None:
        """Publish which model is served, by what."""
        self._model_info.labels(
            model=model.manifest.name,
            version=model.manifest.version,
            runtime=model.runner.runtime,
            device=model.runner.device,
            provider=model.runner.provider,
        ).set(1)
