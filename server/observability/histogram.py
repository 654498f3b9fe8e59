"""A histogram that is cheap to observe, for what every request is counted by."""

import time
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from threading import Lock

import numpy as np
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar

MAX_PENDING = 1024
Bucket = tuple[str, float] | tuple[str, float, Exemplar]  # upper bound, values up to it


class Observations:
    """The observations under one set of labels."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bound_list = list(bounds)
        self._bounds = np.array(bounds)
        self._names = [*(str(float(bound)) for bound in bounds), "+Inf"]
        self._counts = np.zeros(len(bounds) + 1, np.int64)
        self._exemplars: list[Exemplar | None] = [None] * (len(bounds) + 1)
        self._sum = 0.0
        self._pending: list[float] = []
        self._lock = Lock()  # of what is sorted: a scrape comes in a thread of its own

    def observe(self, value: float) -> None:
        """Count a value in."""
        self._pending.append(value)
        if len(self._pending) >= MAX_PENDING:
            self._sort()

    def note_exemplar(self, value: float, trace_id: str) -> None:
        """Keep the trace of a value that is counted, the newest of each bucket."""
        exemplar = Exemplar({"trace_id": trace_id}, value, round(time.time(), 3))
        self._exemplars[bisect_left(self._bound_list, value)] = exemplar

    def add(self, counts: Sequence[int], total: float) -> None:
        """Count in values that were sorted into these buckets, the last of which has no bound."""
        with self._lock:
            self._counts += np.array(counts, np.int64)
            self._sum += total

    def take(self, other: "Observations") -> None:
        """Count in what another has, which keeps it."""
        other._sort()
        with other._lock:
            counts, total, exemplars = other._counts.copy(), other._sum, list(other._exemplars)
        with self._lock:
            self._counts += counts
            self._sum += total
            pairs = zip(self._exemplars, exemplars, strict=True)
            self._exemplars = [theirs or own for own, theirs in pairs]

    def totals(self) -> tuple[list[Bucket], float]:
        """Return each bucket, with its exemplar if there is one, and the sum."""
        self._sort()
        with self._lock:
            cumulative, total = np.cumsum(self._counts).tolist(), self._sum
        found: list[Bucket] = [
            (name, count) if exemplar is None else (name, count, exemplar)
            for name, count, exemplar in zip(
                self._names, cumulative, list(self._exemplars), strict=True
            )
        ]
        return found, total

    def _sort(self) -> None:
        with self._lock:
            # Others may add meanwhile: only what was taken goes.
            taken = self._pending[:]
            del self._pending[: len(taken)]
            values = np.array(taken)
            places = np.searchsorted(self._bounds, values, side="left")
            self._counts += np.bincount(places, minlength=len(self._counts))
            self._sum += float(values.sum())


class Sums:
    """Sums of one value by the buckets of another; any thread may add."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = list(bounds)
        self._sums = [0.0] * (len(self._bounds) + 1)
        self._lock = Lock()

    def add(self, of: float, value: float) -> None:
        """Add a value in the bucket of another."""
        with self._lock:
            self._sums[bisect_left(self._bounds, of)] += value

    def add_all(self, values: Sequence[float]) -> None:
        """Add values that were added up by these buckets, the last of which has no bound."""
        with self._lock:
            self._sums = [old + new for old, new in zip(self._sums, values, strict=True)]

    def totals(self) -> list[float]:
        """Return the sum of each bucket."""
        with self._lock:
            return list(self._sums)


class BufferedHistogram(Collector):
    """A Prometheus histogram that sorts its values into buckets when it is scraped, or many came.

    prometheus_client's own does so at every value: with two of them for each
    request that costs several times the request's share of the forward pass.
    """

    def __init__(
        self,
        name: str,
        documentation: str,
        label_names: Sequence[str],
        bounds: Sequence[float],
        registry: CollectorRegistry,
    ) -> None:
        self._name = name
        self._documentation = documentation
        self._label_names = label_names
        self._bounds = bounds
        self._children: dict[tuple[str, ...], dict[int, Observations]] = {}
        self._lock = Lock()  # while parts are joined no sum is taken
        registry.register(self)

    def labels(self, *values: str, part: int = 0) -> Observations:
        """Return what observes under these labels; the series is there from then on.

        A series may have parts, which are observed and read by themselves: it is their sum.
        """
        parts = self._children.setdefault(values, {})
        return parts.setdefault(part, Observations(self._bounds))

    def join(self, *values: str, part: int) -> None:
        """Count what a part has into part 0, and forget the part."""
        with self._lock:
            self.labels(*values).take(self._children[values].pop(part))

    def collect(self) -> Iterator[Metric]:
        """Yield the family with every series."""
        family = HistogramMetricFamily(
            self._name, self._documentation, labels=list(self._label_names)
        )
        for values in list(self._children):
            buckets, total = self._together(values).totals()
            family.add_metric(list(values), buckets, total)
        yield family

    def _together(self, values: tuple[str, ...]) -> Observations:
        together = Observations(self._bounds)
        with self._lock:
            for part in list(self._children[values].values()):
                together.take(part)
        return together
