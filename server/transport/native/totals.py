"""What the lane counted, added to the metrics of the services."""

from threading import Lock

from server.observability.metrics import ServerMetrics
from server.transport.native.extension import Extension, Observed


class LaneTotalsReader:
    """Adds what the lane has counted to the metrics of the services, before each scrape."""

    def __init__(self, extension: Extension, metrics: ServerMetrics) -> None:
        self._extension, self._metrics = extension, metrics
        self._before = extension.totals()["lane"]
        self._lock = Lock()  # scrapes may come together

    def read(self) -> None:
        """Add what was counted since the last time."""
        with self._lock:
            before, now = self._before, self._extension.totals()["lane"]
            self._before = now
        batcher = self._metrics.engine.batcher("predict")
        batcher.images.inc(now["images"] - before["images"])
        batcher.run_images.add(*_since(now["run_images"], before["run_images"]))
        batcher.run_seconds.add(*_since(now["run_seconds"], before["run_seconds"]))
        batcher.queue_seconds.add(*_since(now["queue_seconds"], before["queue_seconds"]))
        for (path, codes, seconds), (_, codes_before, seconds_before) in zip(
            now["calls"], before["calls"], strict=True
        ):
            counts = {
                code: count - count_before
                for (code, count), (_, count_before) in zip(codes, codes_before, strict=True)
            }
            self._metrics.calls.method(path).add(counts, *_since(seconds, seconds_before))
            service, method = path.removeprefix("/").split("/")
            self._metrics.calls.lane_calls.labels(service, method).inc(sum(counts.values()))


def _since(now: Observed, before: Observed) -> Observed:
    counts = [count - earlier for count, earlier in zip(now[0], before[0], strict=True)]
    return counts, now[1] - before[1]
