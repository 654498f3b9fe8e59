"""The HTTP server: HTTP/1.1 and 2 by hypercorn, in the server's own event loop."""

import asyncio
import contextlib
import socket
from functools import partial

import h11
import structlog
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.asyncio.tcp_server import TCPServer
from hypercorn.asyncio.worker_context import WorkerContext
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.h2 import H2Protocol
from hypercorn.protocol.h11 import H11Protocol, H11WSConnection
from starlette.types import ASGIApp

from server.addresses import bind_all
from server.errors import StartError
from server.observability.connections import ConnectionCounter
from server.security.tls import ServerTls
from server.transport.http.tls import ssl_context

REMEDY = "choose another with --host or --http-port, or --http-port off"
HANDSHAKE_SECONDS = 20
# A connection may be silent for so long: before its first request, in its headers, between two.
IDLE_SECONDS = 60
# What was sent has so long to be received: a client that does not read is disconnected.
UNREAD_MILLISECONDS = 30_000
MAX_HEADER_BYTES = 32 * 1024
BACKLOG = 128
CLIENT, KEEPALIVE, DRAIN, ERROR = "client", "keepalive", "drain", "error"  # why one ended
LIMIT, TLS = "limit", "tls"  # why one was refused

log = structlog.get_logger()


class _Connection(TCPServer):
    """A connection; when its client has left, neither its idle timer nor a response keeps it."""

    _has_left = False
    end: str | None = None  # why it ended, if not by its client

    async def protocol_send(self, event: Event) -> None:
        """Do what the protocol says, but start no idle timer for a client that has left."""
        if isinstance(event, Closed) and self.context.terminated.is_set():
            self.end = self.end or DRAIN
        if not (self._has_left and isinstance(event, Updated)):
            await super().protocol_send(event)
        if isinstance(event, RawData) and self._has_refused_websocket():
            await self._close()  # hypercorn would leave it open, without an idle timer

    def _has_refused_websocket(self) -> bool:
        protocol = self.protocol.protocol
        connection = protocol.connection if isinstance(protocol, H11Protocol) else None
        return (
            isinstance(connection, H11WSConnection)
            and connection.h11_connection.our_state is h11.MUST_CLOSE
        )

    async def _initiate_server_close(self) -> None:
        self.end = self.end or (DRAIN if self.context.terminated.is_set() else KEEPALIVE)
        await super()._initiate_server_close()

    async def _read_data(self) -> None:
        await super()._read_data()
        self._has_left = True
        await self.idle_task.stop()
        if isinstance(self.protocol.protocol, H2Protocol):
            # What waits until a stream's data have been sent would wait for ever.
            for buffer in list(self.protocol.protocol.stream_buffers.values()):
                await buffer.close()


class HttpServer:
    """Listens, and answers with an application.

    Args:
        app: the application.
        max_connections: a further one is closed at once.
        tls: its certificate and key; None: no TLS.
    """

    def __init__(self, app: ASGIApp, max_connections: int, tls: ServerTls | None = None) -> None:
        self._app = ASGIWrapper(app)  # type: ignore[arg-type]  # hypercorn has types of its own for ASGI
        self._max_connections = max_connections
        refused = (LIMIT, TLS) if tls else (LIMIT,)
        self.connections = ConnectionCounter((CLIENT, KEEPALIVE, DRAIN, ERROR), refused)
        self._tls = ssl_context(tls, partial(self.connections.refuse, TLS)) if tls else None
        self._config = _config()
        self._context = WorkerContext(None)
        self._connections: set[asyncio.Task[None]] = set()
        self._listening: list[asyncio.Server] = []

    async def listen(self, host: str, port: int) -> int:
        """Listen on every address of a host; return the port, which for 0 is one that was free.

        Raises:
            StartError: an address cannot be bound; the text names it.
        """
        bound = [each for _, each in bind_all(host, port, "HTTP", REMEDY)]
        chosen: int = bound[0].getsockname()[1]
        for each in bound:
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            each.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNREAD_MILLISECONDS)
            try:
                self._listening.append(
                    await asyncio.start_server(
                        self._serve_connection,
                        sock=each,
                        backlog=BACKLOG,
                        ssl=self._tls,
                        ssl_handshake_timeout=HANDSHAKE_SECONDS if self._tls else None,
                    )
                )
            except OSError as error:  # another process listens since it was bound
                raise StartError(
                    f"can't listen for HTTP on port {chosen}: {error.strerror}; {REMEDY}"
                ) from error
        return chosen

    async def stop(self, grace: float | None) -> None:
        """Accept no more connections; end requests that still run after `grace` seconds."""
        for each in self._listening:
            each.close()
        await self._context.terminated.set()  # idle connections end now, others after a response
        if self._connections:
            await asyncio.wait(self._connections, timeout=grace)
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _serve_connection(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if len(self._connections) >= self._max_connections:
            self.connections.refuse(LIMIT)
            writer.transport.abort()
            return
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 (asyncio calls this in a task)
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)
        loop = asyncio.get_running_loop()
        connection = _Connection(self._app, loop, self._config, self._context, {}, reader, writer)
        self.connections.enter()
        end = ERROR
        try:
            await connection
            end = connection.end or CLIENT
        except asyncio.CancelledError:  # by `stop`; asyncio.streams would log it as a failure
            end = DRAIN
            log.debug("connection ended by the shutdown")
        except Exception:
            # What a client sends may upset a parser.
            log.debug("connection failed", exc_info=True)
        finally:
            self.connections.leave(end)
            with contextlib.suppress(Exception):
                writer.transport.abort()  # nothing, if it is closed


def _config() -> Config:
    config = Config()
    config.include_server_header = False
    config.keep_alive_timeout = IDLE_SECONDS
    config.h11_max_incomplete_size = MAX_HEADER_BYTES
    config.h2_max_header_list_size = MAX_HEADER_BYTES
    config.errorlog = config.accesslog = None
    return config
