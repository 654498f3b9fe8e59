"""Metrics of the engine: runs, batches and the queue, by the batcher."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import product
from threading import Lock
from typing import Literal, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge

from server.observability.buckets import IMAGES_BUCKETS, SECONDS_BUCKETS
from server.observability.histogram import BufferedHistogram, Observations, Sums

BATCHER_LABELS = ("batcher",)
BatcherName = Literal["predict", "trace"]
BATCHERS: tuple[BatcherName, ...] = get_args(BatcherName)
# What ended with an error is counted by its method where no batcher had it yet.
BATCHER_OF_METHOD: Mapping[str, BatcherName] = {
    "/forward.v1.ForwardService/Predict": "predict",
    "/forward.v1.ForwardService/PredictStream": "predict",
    "/forward.v1.ForwardService/Trace": "trace",
    "/forward.v1.ForwardService/Attribute": "trace",
    "/inference.GRPCInferenceService/ModelInfer": "predict",
}
MAX_VERSIONS = 100  # of which the counts are kept apart
Age = Callable[[], float]  # seconds


@dataclass(slots=True)
class BatcherMetrics:
    """The metrics of one batcher for one version of the model.

    The images are counted for all versions together; a version's own are the sum of `run_images`.
    Calls that failed are in metrics of their own by method, so that these here are no series.
    """

    images: Counter
    run_images: Observations
    run_requests: Observations
    run_seconds: Observations
    sized_seconds: Sums  # of runs, by the buckets of run_images
    queue_seconds: Observations
    encode_seconds: Observations
    failed_seconds: Observations
    last_run: float = 0.0  # when one ended, in seconds since 1970

    def observe_run(self, images: int, requests: int, seconds: float) -> None:
        """Count a run, which several requests may have shared."""
        self.images.inc(images)
        self.run_images.observe(images)
        self.run_requests.observe(requests)
        self.run_seconds.observe(seconds)
        self.sized_seconds.add(images, seconds)
        self.last_run = time.time()


class EngineMetrics:
    """The metrics of all batchers: series of all versions together, which can be read by version.

    Attributes:
        served_version: of the model.
        lane_version: that the lane of the native transport answers by, or last did.
    """

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
        self._histograms = (
            *(self._run_images, self._run_requests, self._run_seconds),
            *(self._queue_seconds, self._encode_seconds),
        )
        text = "Images that wait or run."
        self._queue_images = Gauge("forward_queue_images", text, registry=registry)
        text = "The most images that may wait or run."
        self._queue_limit = Gauge("forward_queue_limit_images", text, registry=registry)
        text = "How long the oldest request that waits for its run has waited; 0: none waits."
        oldest = Gauge("forward_queue_oldest_seconds", text, BATCHER_LABELS, registry=registry)
        self._ages: dict[BatcherName, list[Age]] = {name: [] for name in BATCHERS}
        self.served_version = self.lane_version = 0
        self._versions: dict[int, dict[BatcherName, BatcherMetrics]] = {}  # the last added is last
        self._lock = Lock()  # of changes to them
        # Of versions that are not kept apart, and of none.
        self._rest = self._of_version(0)
        for name in BATCHERS:
            oldest.labels(name).set_function(partial(self.oldest, name))

    def oldest(self, batcher: BatcherName) -> float:
        """Return how many seconds the oldest request has waited; 0: none waits."""
        return max((age() for age in self._ages[batcher]), default=0.0)

    def _of_version(self, version: int) -> dict[BatcherName, BatcherMetrics]:
        return {
            name: BatcherMetrics(
                images=self._images.labels(name),
                run_images=self._run_images.labels(name, part=version),
                run_requests=self._run_requests.labels(name, part=version),
                run_seconds=self._run_seconds.labels(name, part=version),
                sized_seconds=Sums(IMAGES_BUCKETS),
                queue_seconds=self._queue_seconds.labels(name, part=version),
                encode_seconds=self._encode_seconds.labels(name, part=version),
                failed_seconds=Observations(()),
            )
            for name in BATCHERS
        }

    def add_version(self, version: int) -> None:
        """Keep a version apart from now on; if there are many, the first added no longer is."""
        with self._lock:
            known = self._versions.pop(version, None)
            self._versions[version] = known or self._of_version(version)
            self.served_version = self.served_version or version
            if len(self._versions) > MAX_VERSIONS:
                first = next(iter(self._versions))
                del self._versions[first]
                for name, histogram in product(BATCHERS, self._histograms):
                    histogram.join(name, part=first)

    def batcher(self, batcher: BatcherName, version: int) -> BatcherMetrics:
        """Return the metrics of a batcher for a version."""
        return self._versions.get(version, self._rest)[batcher]

    @property
    def versions(self) -> list[int]:
        """The versions that are kept apart, of those that were loaded since the start."""
        with self._lock:
            return sorted(self._versions)

    def fail(self, method: str, batcher: BatcherName | None, version: int, seconds: float) -> None:
        """Count a call that ended with an error, if it was one for a batcher.

        Args:
            method: "/service/method".
            batcher: that ran it; None: none did.
            version: that it asked; 0: none, so it counts for the one that is served.
            seconds: from its begin to its end.
        """
        if name := batcher or BATCHER_OF_METHOD.get(method):
            self.batcher(name, version or self.served_version).failed_seconds.observe(seconds)

    def add_failed(self, method: str, version: int, count: int) -> None:
        """Count in calls that ended with an error, after times that are not known; as `fail`."""
        if name := BATCHER_OF_METHOD.get(method):
            self.batcher(name, version or self.served_version).failed_seconds.add([count], 0.0)

    def watch_queue(self, queued_images: Callable[[], int], limit: int) -> None:
        """Read the queue's length whenever the metrics are scraped, and show its limit."""
        self._queue_images.set_function(queued_images)
        self._queue_limit.set(limit)

    def add_oldest(self, batcher: BatcherName, age: Age) -> None:
        """Read how long the oldest request waits, in one more place, at each scrape."""
        self._ages[batcher].append(age)
