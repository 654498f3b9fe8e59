"""How late the event loop is: all calls wait for whatever holds it."""

import asyncio

from prometheus_client import CollectorRegistry

from server.observability.buckets import SECONDS_BUCKETS
from server.observability.histogram import BufferedHistogram

INTERVAL_SECONDS = 0.25


class EventLoopLag:
    """Measures by a timer how late the running event loop fires it."""

    def __init__(self, registry: CollectorRegistry) -> None:
        text = "How late a timer of the event loop fired."
        histogram = BufferedHistogram(
            "forward_event_loop_lag_seconds", text, (), SECONDS_BUCKETS, registry
        )
        self._seconds = histogram.labels()
        self._loop = asyncio.get_running_loop()
        self._timer = self._set(self._loop.time() + INTERVAL_SECONDS)

    def _set(self, due: float) -> asyncio.TimerHandle:
        return self._loop.call_at(due, self._fire, due)

    def _fire(self, due: float) -> None:
        now = self._loop.time()
        self._seconds.observe(max(0.0, now - due))
        self._timer = self._set(now + INTERVAL_SECONDS)

    def stop(self) -> None:
        """Measure no more."""
        self._timer.cancel()
