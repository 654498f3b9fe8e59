"""Drift: how far the images that are served are from those that the model was trained on.

Samples of them wait until there are enough to be counted together, or the metrics are scraped.
"""

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from threading import Lock

import numpy as np
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from export.bundle.reference import DriftReference
from export.features import FEATURES, VALUE_BOUNDS, Feature, bins_of, features_of
from server.config import MIN_DRIFT_SAMPLES
from server.observability.histogram import Observations

MAX_PENDING, MAX_PENDING_BYTES = 64, 1_000_000  # of samples that are counted together
MIN_GAP, MAX_GAP = 4, 7  # requests to the next sample, at random: no client's rhythm is followed
MIN_SECONDS = 0.01  # to the next sample
SHARE_OF_EMPTY = 1e-4  # what a bin without images counts as
UINT8_MAX = np.float32(255)
FAMILIES: Mapping[Feature, tuple[str, str]] = {
    "intensity": ("forward_input_intensity", "Mean pixel of sampled images, 0..1."),
    "ink": ("forward_input_ink", "Share of pixels above 0.5 of sampled images."),
    "confidence": (
        "forward_prediction_confidence",
        "Softmax probability of the predicted class of sampled images.",
    ),
    "gap": (
        "forward_prediction_gap",
        "Difference of the two largest logits of sampled images.",
    ),
}


def stability_index(expected: np.ndarray, found: np.ndarray) -> float:
    """Return the population-stability index of two histograms with the same bins.

    With p the shares of the images found in each bin and q those expected, it is the sum of
    (p - q) * ln(p / q) (Siddiqi, Credit Risk Scorecards, 2006, under the name of system-stability
    index): 0 if they are equal, and never below. By the same source, under 0.1 is no change worth
    a look, and over 0.25 a large one. Each share is taken as (share + 1e-4) / (1 + bins * 1e-4),
    so that an empty bin gives no infinity, and one that is empty in both gives nothing.
    """
    p, q = (
        (counts / counts.sum() + SHARE_OF_EMPTY) / (1 + len(counts) * SHARE_OF_EMPTY)
        for counts in (found, expected)
    )
    return float(((p - q) * np.log(p / q)).sum())


class DriftMetrics(Collector):
    """What is exported: the counts of all samples since the start, and the monitor's indices.

    Nothing until a version with a drift reference is served.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._monitor: Callable[[], DriftMonitor | None] = lambda: None
        self._values = {feature: Observations(VALUE_BOUNDS[feature]) for feature in FAMILIES}
        self._classes: dict[str, int] = {}  # images by the predicted class
        self._lock = Lock()  # of the classes: an old version may still count
        registry.register(self)

    def follow(self, monitor: "Callable[[], DriftMonitor | None]") -> None:
        """Read the monitor of the version that is served then at each scrape."""
        self._monitor = monitor

    def add(self, feature: Feature, counts: np.ndarray, total: float) -> None:
        """Count values in by their bins, the sum of which is the total."""
        self._values[feature].add(counts.tolist(), total)

    def add_classes(self, labels: Sequence[str], counts: np.ndarray) -> None:
        """Count predictions in by their class."""
        with self._lock:
            for label, count in zip(labels, counts.tolist(), strict=True):
                self._classes[label] = self._classes.get(label, 0) + count

    def collect(self) -> Iterator[Metric]:
        """Yield the families."""
        monitor = self._monitor()
        if monitor is None and not self._classes:
            return
        samples, indices = monitor.indices() if monitor else (0, {})
        for feature, (name, text) in FAMILIES.items():
            buckets, total = self._values[feature].totals()
            yield HistogramMetricFamily(name, text, buckets=buckets, sum_value=total)
        text = "Predicted classes of sampled images."
        classes = CounterMetricFamily("forward_predicted_class", text, labels=["class"])
        with self._lock:
            for label, count in self._classes.items():
                classes.add_metric([label], count)
        yield classes
        text = "Population-stability index of the sampled images in the window."
        index = GaugeMetricFamily("forward_drift_psi", text, labels=["feature"])
        for feature, value in indices.items():
            index.add_metric([feature], value)
        yield index
        text = "Sampled images in the window."
        yield GaugeMetricFamily("forward_drift_samples", text, value=samples)


class DriftMonitor:
    """Compares the last sampled images of one version with its reference.

    Any thread may call it. `window` is the number of images that are compared. Without drift an
    index is about (bins - 1) / window on average, from chance alone (Yurdakul, Statistical
    Properties of Population Stability Index, 2018): with 13 bins 0.024 for MIN_DRIFT_SAMPLES
    images, and 0.006 for 2,048, which at 100 samples a second are those of 20 s.
    """

    def __init__(
        self,
        reference: DriftReference,
        labels: Sequence[str],
        metrics: DriftMetrics,
        window: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._labels, self._metrics, self._clock = tuple(labels), metrics, clock
        self._bounds = {f: reference.histograms[f].upper_bounds for f in FEATURES}
        self._expected = {f: np.array(reference.histograms[f].counts) for f in FEATURES}
        # The bin of each image of the window by feature; the oldest is overwritten.
        self._window = np.zeros((len(FEATURES), window), np.uint16)
        self._count = 0  # samples so far
        self._pending: list[tuple[np.ndarray, np.ndarray]] = []
        self._lock = Lock()
        self._due = 0  # requests until the next sample
        self._due_time = 0.0  # and no earlier than this
        metrics.add_classes(self._labels, np.zeros(len(self._labels), np.int64))

    def sample(self, requests: Sequence[np.ndarray], logits: np.ndarray) -> None:
        """Take the first image of one of a run's requests [N, H, W], now and then.

        At most of every fourth request, and 100 a second. `logits` are of all the images.
        """
        self._due -= len(requests)
        if self._due > 0 or (now := self._clock()) < self._due_time:
            return
        self._due, self._due_time = random.randint(MIN_GAP, MAX_GAP), now + MIN_SECONDS  # noqa: S311 (no secret)
        chosen = random.randrange(len(requests))  # noqa: S311 (no secret)
        row = sum(len(request) for request in requests[:chosen])
        self.observe(requests[chosen][0], logits[row])

    def observe(self, image: np.ndarray, logits: np.ndarray) -> None:
        """Take a sample: an image, FLOAT32 in 0..1 or UINT8, and its logits [classes].

        Both are copied. At most 100 a second are expected.
        """
        pending = (image.copy(), logits.copy())  # what they are views of is large, or reused
        with self._lock:
            self._pending.append(pending)
            waiting = len(self._pending)
            if waiting >= MAX_PENDING or waiting * image.nbytes >= MAX_PENDING_BYTES:
                self._count_pending()

    def indices(self) -> tuple[int, dict[Feature, float]]:
        """Return the number of samples in the window, and the index of each feature.

        There is none while the samples are fewer than MIN_DRIFT_SAMPLES.
        """
        with self._lock:
            self._count_pending()
            window = self._window[:, : self._count].copy()
        samples = window.shape[1]
        if samples < MIN_DRIFT_SAMPLES:
            return samples, {}
        indices = {}
        for feature, bins in zip(FEATURES, window, strict=True):
            expected = self._expected[feature]
            found = np.bincount(bins, minlength=len(expected))
            indices[feature] = stability_index(expected, found)
        return samples, indices

    def _count_pending(self) -> None:
        """Move the samples that wait into the window, and count them in."""
        if not self._pending:
            return
        pixels = np.stack([_pixels(image) for image, _ in self._pending])
        logits = np.stack([each for _, each in self._pending])
        self._pending.clear()
        places = np.arange(self._count, self._count + len(pixels)) % self._window.shape[1]
        self._count += len(pixels)
        found = features_of(pixels, logits)
        for row, feature in enumerate(FEATURES):
            values = found[feature]
            bins = bins_of(values, self._bounds[feature])
            self._window[row, places] = bins
            counts = np.bincount(bins, minlength=len(self._expected[feature]))
            if feature == "class":
                self._metrics.add_classes(self._labels, counts)
            else:
                self._metrics.add(feature, counts, float(values.sum()))


def _pixels(image: np.ndarray) -> np.ndarray:
    return image / UINT8_MAX if image.dtype == np.uint8 else image
