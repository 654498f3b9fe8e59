"""The port of the metrics: HTTP in threads, as few as scraping needs."""

import socket
import threading
import time
from collections import OrderedDict
from contextlib import suppress
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import structlog
from prometheus_client import make_wsgi_app

from server.errors import StartError
from server.metrics import ServerMetrics
from server.supervision import keep_thread_running

MOST_CONNECTIONS = 16  # each has a thread
SILENCE_SECONDS = 10  # a client that neither sends nor reads for so long is dropped
RETRY_SECONDS = 0.1

log = structlog.get_logger()


class _Handler(WSGIRequestHandler):
    """Answers one connection."""

    timeout = SILENCE_SECONDS

    def log_message(self, *_format_and_arguments: object) -> None:
        """Do not log requests."""


class _Server(ThreadingMixIn, WSGIServer):
    """Answers each connection in a thread; one too many ends the oldest."""

    daemon_threads = True
    request_queue_size = 128  # connections that the kernel holds meanwhile

    def __init__(self, family: socket.AddressFamily, address: Any) -> None:  # noqa: ANN401 (socket's)
        self.address_family = family
        self._open: OrderedDict[socket.socket, None] = OrderedDict()
        self._lock = threading.Lock()
        super().__init__(address, _Handler)

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection."""
        try:
            return super().get_request()
        except OSError:  # no file descriptor is free: the next try would follow at once
            time.sleep(RETRY_SECONDS)
            raise

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 (socketserver's)
        """Make room for a connection, and answer it in a thread."""
        with self._lock:
            if len(self._open) >= MOST_CONNECTIONS:
                oldest, _ = self._open.popitem(last=False)
                with suppress(OSError):  # its client may have left
                    oldest.shutdown(socket.SHUT_RDWR)  # its thread closes it
            self._open[request] = None
        super().process_request(request, client_address)

    def close_request(self, request: Any) -> None:  # noqa: ANN401 (socketserver's)
        """Close a connection."""
        with self._lock:
            self._open.pop(request, None)
        super().close_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401, ARG002 (socketserver's)
        """Log what ended a connection: mostly its client, in the middle of something."""
        log.debug("scrape failed", exc_info=True)


def serve_metrics(metrics: ServerMetrics, host: str, port: int) -> int:
    """Serve /metrics from a thread; return the port.

    Raises:
        StartError: the port can't be had.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, *_, address = found[0]
        server = _Server(family, address)
    except OSError as error:
        raise StartError(
            f"can't serve metrics on {host} port {port}: {error.strerror}; "
            "choose another with --host or --metrics-port"
        ) from error
    server.set_app(make_wsgi_app(metrics.registry))
    keep_thread_running("metrics", server.serve_forever, metrics.count_failure)
    return int(server.server_port)
