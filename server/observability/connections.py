"""The connections of each transport, read when the metrics are scraped."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

TRANSPORT = ("transport",)
REASONS = (*TRANSPORT, "reason")


@dataclass(frozen=True)
class ConnectionCounts:
    """The connections of a transport since its start; reasons that can't happen are left out.

    Attributes:
        open: those that are there now; of the native transport also in their handshakes.
        opened: those that were served, or are.
        closed: those that were, by why they ended.
        refused: those that never were, by why.
    """

    open: int
    opened: int
    closed: Mapping[str, int]
    refused: Mapping[str, int]


class ConnectionCounter:
    """Counts the connections of a transport, by reasons that are fixed.

    Args:
        closed: why a connection may end that was served.
        refused: why one may not be served.
    """

    def __init__(self, closed: Iterable[str], refused: Iterable[str]) -> None:
        self._open = self._opened = 0
        self._closed, self._refused = dict.fromkeys(closed, 0), dict.fromkeys(refused, 0)

    @property
    def open(self) -> int:
        """The connections that are there."""
        return self._open

    def enter(self) -> None:
        """Count one in."""
        self._open += 1
        self._opened += 1

    def leave(self, reason: str) -> None:
        """Count one out that was served."""
        self._open -= 1
        self._closed[reason] += 1

    def refuse(self, reason: str) -> None:
        """Count one that is not served."""
        self._refused[reason] += 1

    def counts(self) -> ConnectionCounts:
        """Return what was counted so far."""
        return ConnectionCounts(self._open, self._opened, dict(self._closed), dict(self._refused))


class ConnectionMetrics(Collector):
    """The metrics of connections, of the transports that can tell."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._counts: dict[str, Callable[[], ConnectionCounts]] = {}  # by transport
        registry.register(self)

    def watch(self, transport: str, counts: Callable[[], ConnectionCounts]) -> None:
        """Read the connections of a transport whenever the metrics are scraped."""
        self._counts[transport] = counts

    def collect(self) -> Iterator[Metric]:
        """Yield the families, if any transport is watched."""
        if not self._counts:
            return
        text = "Connections that are there."
        there = GaugeMetricFamily("forward_connections", text, labels=TRANSPORT)
        text = "Connections that were served, or are."
        opened = CounterMetricFamily("forward_connections_opened", text, labels=TRANSPORT)
        text = "Connections that ended after they were served, by why."
        closed = CounterMetricFamily("forward_connections_closed", text, labels=REASONS)
        text = "Connections that were not served, by why."
        refused = CounterMetricFamily("forward_connections_refused", text, labels=REASONS)
        for transport, read in self._counts.items():
            counts = read()
            there.add_metric([transport], counts.open)
            opened.add_metric([transport], counts.opened)
            for reason, count in counts.closed.items():
                closed.add_metric([transport, reason], count)
            for reason, count in counts.refused.items():
                refused.add_metric([transport, reason], count)
        yield from (there, opened, closed, refused)
