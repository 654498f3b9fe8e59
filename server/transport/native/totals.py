"""What the extension counted, added to the metrics of the server."""

import time
from collections.abc import Callable, Collection, Mapping
from threading import Lock

from google.rpc import code_pb2

from server.errors import Rejection
from server.observability.call_metrics import REJECTION_OF_STATUS, UNKNOWN_METHOD
from server.observability.connections import ConnectionCounts
from server.observability.metrics import ServerMetrics
from server.transport.native.extension import Extension, LaneTotals, Named, Observed, Totals

# By the status with which the lane refuses: it has no other reason for it.
LANE_REJECTIONS: Mapping[str, Rejection] = {
    **REJECTION_OF_STATUS,
    "RESOURCE_EXHAUSTED": "queue_full",
    "UNAVAILABLE": "draining",
}


class TotalsReader:
    """Reads what the extension has counted before each scrape.

    Args:
        extension: the server of the extension.
        metrics: what is added to.
        calls_in_python: how many calls Python has; the extension counts those, too.
        impossible: reasons of connections that this server never has.
    """

    def __init__(
        self,
        extension: Extension,
        metrics: ServerMetrics,
        calls_in_python: Callable[[], int],
        impossible: Collection[str],
    ) -> None:
        self._extension, self._metrics = extension, metrics
        self._calls_in_python, self._impossible = calls_in_python, impossible
        self._totals = extension.totals()
        self._lock = Lock()  # scrapes may come together
        metrics.add_scrape_callback(self.read)
        metrics.connections.watch("grpc", self._connections)
        metrics.calls.add_in_flight(self._calls_in_flight)
        metrics.engine.add_oldest("predict", lambda: self._totals["lane"]["queue_oldest_seconds"])
        metrics.watch_lane_observations(lambda: self._totals["observations_dropped"])

    def read(self) -> None:
        """Add what was counted since the last time."""
        with self._lock:
            before, now = self._totals, self._extension.totals()
            self._totals = now
            self._add_runs(before["lane"], now["lane"])
            self._add_lane_calls(before["lane"], now["lane"])
            self._add_ended(before, now)

    def _add_runs(self, before: LaneTotals, now: LaneTotals) -> None:
        engine = self._metrics.engine
        batcher = engine.batcher("predict", engine.lane_version)
        if now["images"] > before["images"]:
            batcher.last_run = time.time()
        batcher.images.inc(now["images"] - before["images"])
        batcher.run_requests.add(*_since(now["run_requests"], before["run_requests"]))
        batcher.run_images.add(*_since(now["run_images"], before["run_images"]))
        batcher.run_seconds.add(*_since(now["run_seconds"], before["run_seconds"]))
        sized = zip(now["sized_seconds"], before["sized_seconds"], strict=True)
        batcher.sized_seconds.add_all([seconds - earlier for seconds, earlier in sized])
        batcher.queue_seconds.add(*_since(now["queue_seconds"], before["queue_seconds"]))
        batcher.encode_seconds.add(*_since(now["encode_seconds"], before["encode_seconds"]))

    def _add_lane_calls(self, before: LaneTotals, now: LaneTotals) -> None:
        calls, engine = self._metrics.calls, self._metrics.engine
        for (path, codes, seconds), (_, codes_before, seconds_before) in zip(
            now["calls"], before["calls"], strict=True
        ):
            counts = {
                code: count - count_before
                for (code, count), (_, count_before) in zip(codes, codes_before, strict=True)
            }
            calls.method(path).add(counts, *_since(seconds, seconds_before))
            service, method = path.removeprefix("/").split("/")
            calls.lane_calls.labels(service, method).inc(sum(counts.values()))
            failed = sum(count for code, count in counts.items() if code != "OK")
            engine.add_failed(path, engine.lane_version, failed)
            for code, count in counts.items():
                self._reject(LANE_REJECTIONS.get(code), count)

    def _add_ended(self, before: Totals, now: Totals) -> None:
        """Add the calls that ended before any service had them."""
        calls = self._metrics.calls
        earlier = {(path, code): count for path, code, count in before["ended"]}
        for path, code, total in now["ended"]:
            # Health is not counted: its paths are known to the extension, and not to the metrics.
            is_counted = path == UNKNOWN_METHOD or calls.known(path) == path
            if (count := total - earlier.get((path, code), 0)) and is_counted:
                status = code_pb2.Code.Name(code)
                calls.method(path).add({status: count})
                if status != "OK":
                    self._metrics.engine.add_failed(path, 0, count)
                self._reject(REJECTION_OF_STATUS.get(status), count)

    def _reject(self, reason: Rejection | None, count: int) -> None:
        if reason:
            self._metrics.calls.rejected.labels(reason).inc(count)

    def _calls_in_flight(self) -> int:
        """Return the calls that Python does not have."""
        return max(0, self._totals["calls_in_flight"] - self._calls_in_python())

    def _connections(self) -> ConnectionCounts:
        found = self._totals["connections"]
        closed, refused = self._possible(found["closed"]), self._possible(found["refused"])
        return ConnectionCounts(found["open"], found["opened"], closed, refused)

    def _possible(self, counts: Named) -> Mapping[str, int]:
        return {reason: count for reason, count in counts if reason not in self._impossible}


def _since(now: Observed, before: Observed) -> Observed:
    counts = [count - earlier for count, earlier in zip(now[0], before[0], strict=True)]
    return counts, now[1] - before[1]
