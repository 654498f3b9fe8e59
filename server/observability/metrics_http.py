"""The metrics port: HTTP, in as few threads as scraping needs."""

import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from copy import copy
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

import structlog
from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from server.addresses import bind_all
from server.observability.metrics import ServerMetrics
from server.observability.supervision import keep_thread_running

MAX_CONNECTIONS = 16  # each has a thread
SILENCE_SECONDS = 10  # a client that neither sends nor reads for so long is dropped
RETRY_SECONDS = 0.1
METHODS = ("GET", "HEAD")
REMEDY = "choose another with --host, --metrics-host or --metrics-port"

log = structlog.get_logger()


class _Connections:
    """The open connections of all addresses; one too many ends the oldest."""

    def __init__(self) -> None:
        self._open: OrderedDict[socket.socket, None] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, connection: socket.socket) -> None:
        with self._lock:
            if len(self._open) >= MAX_CONNECTIONS:
                oldest, _ = self._open.popitem(last=False)
                with suppress(OSError):  # its client may have left
                    oldest.shutdown(socket.SHUT_RDWR)  # its thread closes it
            self._open[connection] = None

    def remove(self, connection: socket.socket) -> None:
        with self._lock:
            self._open.pop(connection, None)


class _Handler(WSGIRequestHandler):
    """Answers one connection."""

    timeout = SILENCE_SECONDS

    def log_message(self, *_format_and_arguments: object) -> None:
        """Do not log requests."""


class _Server(ThreadingMixIn, WSGIServer):
    """Answers each connection to one address in a thread."""

    daemon_threads = True
    request_queue_size = 128  # connections that the kernel holds meanwhile

    def __init__(self, bound: socket.socket, app: WSGIApplication, open_: _Connections) -> None:
        self.address_family = bound.family
        super().__init__(bound.getsockname(), _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = bound
        self._connections = open_
        # As binding would set them, but for the name, which it would look up.
        self.server_name, self.server_port = bound.getsockname()[:2]
        self.setup_environ()
        self.set_app(app)
        self.server_activate()

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection."""
        try:
            return super().get_request()
        except OSError:  # no file descriptor is free: the next try would follow at once
            time.sleep(RETRY_SECONDS)
            raise

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 (socketserver's)
        """Close the oldest connection if there are too many, and answer this one in a thread."""
        self._connections.add(request)
        super().process_request(request, client_address)

    def close_request(self, request: Any) -> None:  # noqa: ANN401 (socketserver's)
        """Close a connection."""
        self._connections.remove(request)
        super().close_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401, ARG002 (socketserver's)
        """Log what ended a connection: mostly its client closed it early."""
        log.debug("scrape failed", exc_info=True)


class _Selectable(Collector):
    """A registry of which prometheus_client shows what `name[]` selects.

    Its own registry finds by the names of samples alone, and by those only of collectors that
    describe themselves before they have any.
    """

    def __init__(self, registry: CollectorRegistry, names: Collection[str] | None = None) -> None:
        self._registry = registry
        self._names = names

    def restricted_registry(self, names: Iterable[str]) -> "_Selectable":
        """Return the part that these names of families or samples select."""
        return _Selectable(self._registry, frozenset(names))

    def collect(self) -> Iterator[Metric]:
        """Yield what is selected."""
        for family in self._registry.collect():
            if self._names is not None and family.name not in self._names:
                part = copy(family)  # a collector may keep its families
                part.samples = [each for each in family.samples if each.name in self._names]
                if part.samples:
                    yield part
            else:
                yield family


def _metrics_app(registry: CollectorRegistry) -> WSGIApplication:
    """Return what answers GET and HEAD of /metrics."""
    exposition: Any = make_wsgi_app(_Selectable(registry))

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
        status, headers, body = "200 OK", [("Content-Type", "text/plain; charset=utf-8")], b""
        method = environ["REQUEST_METHOD"]
        if environ["PATH_INFO"] not in {"/", "/metrics"}:
            status, body = "404 Not Found", b"nothing is here; the metrics are at /metrics\n"
        elif method not in METHODS:
            status, body = "405 Method Not Allowed", b"expected GET or HEAD\n"
            headers.append(("Allow", ", ".join(METHODS)))
        elif environ["PATH_INFO"] == "/":
            body = b"the metrics are at /metrics\n"
        else:
            exposed: list[tuple[str, list[tuple[str, str]]]] = []
            get = {**environ, "REQUEST_METHOD": "GET"}
            (body,) = exposition(get, lambda *started: exposed.append(started))
            ((status, headers),) = exposed
        start_response(status, [*headers, ("Content-Length", str(len(body)))])
        return [] if method == "HEAD" else [body]

    return answer


def serve_metrics(metrics: ServerMetrics, host: str, port: int) -> int:
    """Serve /metrics on every address of a host, from threads; return the port.

    Raises:
        StartError: an address cannot be bound.
    """
    app, connections = _metrics_app(metrics.registry), _Connections()
    servers = [
        _Server(bound, app, connections) for _, bound in bind_all(host, port, "metrics", REMEDY)
    ]
    for server in servers:
        keep_thread_running("metrics", server.serve_forever, metrics.count_failure)
    return int(servers[0].server_port)
