"""Metrics of the engine: runs, batches and the queue, by the batcher."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge

from server.observability.buckets import IMAGES_BUCKETS, SECONDS_BUCKETS
from server.observability.histogram import BufferedHistogram, Observations

BATCHER_LABELS = ("batcher",)
BatcherName = Literal["predict", "trace"]
BATCHERS: tuple[BatcherName, ...] = get_args(BatcherName)
Age = Callable[[], float]  # seconds


@dataclass(frozen=True)
class BatcherMetrics:
    """The metrics of one batcher."""

    images: Counter
    run_images: Observations
    run_requests: Observations
    run_seconds: Observations
    queue_seconds: Observations
    encode_seconds: Observations

    def observe_run(self, images: int, requests: int, seconds: float) -> None:
        """Count a run, which several requests may have shared."""
        self.images.inc(images)
        self.run_images.observe(images)
        self.run_requests.observe(requests)
        self.run_seconds.observe(seconds)


class EngineMetrics:
    """The metrics of all batchers, of every version alike."""

    def __init__(self, registry: CollectorRegistry) -> None:
        histogram = partial(BufferedHistogram, label_names=BATCHER_LABELS, registry=registry)
        seconds = partial(histogram, bounds=SECONDS_BUCKETS)
        counts = partial(histogram, bounds=IMAGES_BUCKETS)
        self._images = Counter(
            "forward_images", "Images computed.", BATCHER_LABELS, registry=registry
        )
        text = "Time that a request waited for its run."
        self._queue_seconds = seconds("forward_queue_seconds", text)
        text = "Time of a run of the runtime."
        self._run_seconds = seconds("forward_run_seconds", text)
        self._run_images = counts("forward_run_images", "Images in a run of the runtime.")
        self._run_requests = counts("forward_run_requests", "Requests in a run of the runtime.")
        text = "Time that it took to make a response of the results of its run."
        self._encode_seconds = seconds("forward_encode_seconds", text)
        text = "Images that wait or run."
        self._queue_images = Gauge("forward_queue_images", text, registry=registry)
        text = "How long the oldest request that waits for its run has waited; 0: none waits."
        oldest = Gauge("forward_queue_oldest_seconds", text, BATCHER_LABELS, registry=registry)
        self._ages: dict[BatcherName, list[Age]] = {name: [] for name in BATCHERS}
        for name in BATCHERS:
            self.batcher(name)
            oldest.labels(name).set_function(partial(self._oldest, name))

    def _oldest(self, batcher: BatcherName) -> float:
        return max((age() for age in self._ages[batcher]), default=0.0)

    def batcher(self, batcher: BatcherName) -> BatcherMetrics:
        """Return the metrics of a batcher."""
        return BatcherMetrics(
            self._images.labels(batcher),
            self._run_images.labels(batcher),
            self._run_requests.labels(batcher),
            self._run_seconds.labels(batcher),
            self._queue_seconds.labels(batcher),
            self._encode_seconds.labels(batcher),
        )

    def watch_queue(self, queued_images: Callable[[], int]) -> None:
        """Read the queue's length whenever the metrics are scraped."""
        self._queue_images.set_function(queued_images)

    def add_oldest(self, batcher: BatcherName, age: Age) -> None:
        """Read how long the oldest request waits, in one more place, at each scrape."""
        self._ages[batcher].append(age)
