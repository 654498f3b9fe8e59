"""The transports of the server, as the settings want them: gRPC, and HTTP beside it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import grpc
import structlog

from server.addresses import is_wildcard
from server.api.methods import Service
from server.config import ServerSettings
from server.descriptors import affordable_connections
from server.errors import StartError
from server.lifecycle.gate import CallGate
from server.lifecycle.shutdown import Transport
from server.lifecycle.state import ServingState
from server.observability.calls import CallObserver
from server.security.policy import Security
from server.transport.grpc.auth import TokenInterceptor
from server.transport.grpc.options import connection_options
from server.transport.grpc.server import (
    HEALTH_SERVICE,
    build_server,
    listen,
    service_handlers,
)
from server.transport.native.extension import NativeModule, open_extension
from server.transport.native.options import Answering, ConnectionLimits, build_native_server

log = structlog.get_logger()


class GrpcServer(Transport, Protocol):
    """A transport of gRPC, which answers when it has been started."""

    async def start(self) -> None:
        """Answer calls from now on."""
        ...


@dataclass(frozen=True)
class Entrance:
    """What the calls of every transport pass."""

    settings: ServerSettings
    security: Security
    observer: CallObserver
    state: ServingState
    gate: CallGate
    max_request_bytes: int
    native: NativeModule | None = None  # None: grpcio carries gRPC


@dataclass(frozen=True)
class OpenTransports:
    """Transports that listen; gRPC answers when it has been started, HTTP at once."""

    grpc: GrpcServer
    grpc_name: str  # python or native
    grpc_port: int
    transports: Sequence[Transport]
    http_port: int | None = None
    page: str | None = None  # its URL


async def open_transports(services: Sequence[Service], entrance: Entrance) -> OpenTransports:
    """Listen on the ports of the settings.

    Raises:
        StartError: a port cannot be bound; the text names it.
    """
    settings, security = entrance.settings, entrance.security
    ports = 1 if settings.http_port == "off" else 2
    max_connections = affordable_connections(settings.max_connections, ports)
    name = "native" if entrance.native else "python"
    observer = entrance.observer
    observer.metrics.set_transport(name)
    handlers = service_handlers(services, observer, entrance.gate, entrance.state)
    server, grpc_port = open_grpc(handlers, entrance, max_connections)
    if settings.http_port == "off":
        return OpenTransports(server, name, grpc_port, (server,))
    # Imported here, for it takes a third of a second.
    from server.transport.http.app import HttpOptions, build_app  # noqa: PLC0415 (as above)
    from server.transport.http.server import HttpServer  # noqa: PLC0415 (as above)

    options = HttpOptions(
        entrance.max_request_bytes,
        settings.http_origins,
        security.tokens,
        settings.health_needs_token,
    )
    app = build_app(services, entrance.state, entrance.gate, observer, options)
    http = HttpServer(app, max_connections, security.tls)
    entrance.observer.metrics.connections.watch("http", http.connections.counts)
    http_port = await http.listen(settings.host_of_http, settings.http_port)
    page = page_url(settings.host_of_http, http_port, is_secure=security.tls is not None)
    return OpenTransports(server, name, grpc_port, (server, http), http_port, page)


def choose_transport(settings: ServerSettings) -> NativeModule | None:
    """Return the extension that is to carry gRPC; None: grpcio does.

    Raises:
        StartError: the native one is to be used, and is not there or does not fit.
    """
    if settings.transport == "python":
        return None
    try:
        return open_extension(settings.max_queue_images)
    except StartError as error:
        if settings.transport == "native":
            raise
        log.info("gRPC is carried by grpcio", reason=str(error))
    return None


def open_grpc(
    handlers: Sequence[grpc.GenericRpcHandler], entrance: Entrance, max_connections: int
) -> tuple[GrpcServer, int]:
    """Listen for gRPC; return the server and the port.

    Raises:
        StartError: the port cannot be bound; the text names it.
    """
    settings, interceptors = entrance.settings, token_interceptors(entrance)
    if entrance.native is not None:
        tokens = entrance.security.tokens
        limits = ConnectionLimits(
            entrance.max_request_bytes,
            max_connections,
            needs_token=tokens is not None,
            needs_tls=entrance.security.tls is not None,
        )
        answering = Answering(handlers, entrance.observer, interceptors)
        native = build_native_server(entrance.native, answering, settings, limits)
        if tokens:
            tokens.watched.use(native.set_tokens)
        entrance.gate.add_close_callback(native.close_gate)
        if entrance.security.tls:
            native.secure(entrance.security.tls)
        return native, native.listen(settings.host, settings.grpc_port)
    options = connection_options(settings, entrance.max_request_bytes, max_connections)
    server = build_server(handlers, options, interceptors)
    return server, listen(server, settings.host, settings.grpc_port, entrance.security.tls)


def token_interceptors(entrance: Entrance) -> list[TokenInterceptor]:
    """Return what checks the tokens of gRPC calls; nothing without a token file."""
    if not entrance.security.tokens:
        return []
    exempt = () if entrance.settings.health_needs_token else (HEALTH_SERVICE,)
    return [TokenInterceptor(entrance.security.tokens, exempt, entrance.observer)]


def page_url(host: str, port: int, *, is_secure: bool) -> str:
    """Return the address of the page, as a browser on this machine takes it."""
    shown = "localhost" if is_wildcard(host) or host == "127.0.0.1" else host
    scheme = "https" if is_secure else "http"
    return f"{scheme}://[{shown}]:{port}/" if ":" in shown else f"{scheme}://{shown}:{port}/"
