"""Metrics of HTTP requests, by their routes."""

import time
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter

from server.observability.buckets import SECONDS_BUCKETS
from server.observability.histogram import BufferedHistogram

HTTP_LABELS = ("http_route",)
FILES_ROUTE = "/"  # counts the files of the page, and what is not there


class HttpMetrics:
    """The metrics of the requests to some routes, whose series are there from the start."""

    def __init__(self, routes: Iterable[str], registry: CollectorRegistry) -> None:
        text = "HTTP requests completed, by status code; 499: the client closed it."
        labels = (*HTTP_LABELS, "http_code")
        self._handled = Counter("forward_http_requests", text, labels, registry=registry)
        text = "Time of an HTTP request, until its response has been sent."
        seconds = BufferedHistogram(
            "forward_http_request_seconds", text, HTTP_LABELS, SECONDS_BUCKETS, registry
        )
        self._seconds = {route: seconds.labels(route) for route in routes}
        for route in self._seconds:
            self._handled.labels(route, "200")

    def observe(self, route: str, status: int, started: float) -> None:
        """Count a request that ends now and began at `started`, a time of time.perf_counter."""
        self._handled.labels(route, str(status)).inc()
        self._seconds[route].observe(time.perf_counter() - started)
