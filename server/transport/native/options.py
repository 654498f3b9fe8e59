"""The server of the extension as the settings want it."""

from collections.abc import Sequence
from dataclasses import dataclass

import grpc
from grpc_status import rpc_status

from server.api.forward_v1.stream import DRAINED
from server.config import ServerSettings
from server.errors import DrainingError, rich_status
from server.observability.buckets import IMAGES_BUCKETS, SECONDS_BUCKETS
from server.observability.calls import CallObserver
from server.transport.grpc.options import HANDSHAKE_SECONDS, MAX_PING_SECONDS, MIN_PING_SECONDS
from server.transport.grpc.reflection import REFLECTION_SERVICES
from server.transport.grpc.server import DESCRIPTORS, HEALTH
from server.transport.native.extension import Extension, NativeModule
from server.transport.native.server import NativeServer


@dataclass(frozen=True)
class ConnectionLimits:
    """What one request, and all connections, may take, and what they need."""

    max_request_bytes: int
    max_connections: int
    needs_token: bool = False
    needs_tls: bool = False


@dataclass(frozen=True)
class Answering:
    """What answers the calls, and to whom they are reported."""

    handlers: Sequence[grpc.GenericRpcHandler]
    observer: CallObserver
    interceptors: Sequence[grpc.aio.ServerInterceptor] = ()


def build_native_server(
    native: NativeModule,
    answering: Answering,
    settings: ServerSettings,
    limits: ConnectionLimits,
) -> NativeServer:
    """Return a server by the extension; it listens nowhere yet.

    Where calls need a token, the lane answers none before `set_tokens`.
    """
    methods = [
        (
            f"/{service.full_name}/{method.name}",
            not method.client_streaming and not method.server_streaming,
        )
        for service in (*DESCRIPTORS, HEALTH, *REFLECTION_SERVICES)
        for method in service.methods
    ]
    drained = rpc_status.to_status(rich_status(DrainingError(DRAINED)))
    tracer = answering.observer.tracer
    extension: Extension = native.module.Server(
        methods=methods,
        max_connections=limits.max_connections,
        max_concurrent_streams=settings.max_concurrent_streams,
        max_message_bytes=limits.max_request_bytes,
        max_metadata_bytes=settings.max_metadata_bytes,
        handshake_seconds=HANDSHAKE_SECONDS,
        keepalive_seconds=settings.keepalive_time,
        keepalive_timeout_seconds=min(settings.keepalive_time, MAX_PING_SECONDS),
        max_age_seconds=settings.max_connection_age,
        age_grace_seconds=settings.drain_timeout,
        min_ping_seconds=MIN_PING_SECONDS,
        needs_token=limits.needs_token,
        drained=(drained.code.value[0], drained.details, drained.trailing_metadata),
        access_log=settings.access_log,
        traces=tracer is not None,
        trace_share=tracer.root_share if tracer else 0.0,
        admission=native.images,
        seconds_bounds=SECONDS_BUCKETS,
        images_bounds=IMAGES_BUCKETS,
    )
    observer = answering.observer
    server = NativeServer(extension, answering.handlers, observer, answering.interceptors)
    possible = {
        "age": settings.max_connection_age > 0,
        "keepalive": settings.keepalive_time > 0,
        "tls": limits.needs_tls,
    }
    server.count_into(observer.metrics, [reason for reason, can in possible.items() if not can])
    return server
