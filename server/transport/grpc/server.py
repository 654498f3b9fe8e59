"""The gRPC server: its services, options, interceptors and addresses."""

import os
from collections.abc import Sequence
from typing import Any, cast
from urllib.parse import quote

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from server.addresses import UNIX_PREFIX, bind_all, claim_socket, is_wildcard, unix_path
from server.api.forward_v1 import service as forward_v1
from server.api.methods import Service
from server.api.open_inference import service as open_inference
from server.errors import StartError
from server.lifecycle.gate import CallGate
from server.lifecycle.state import ServingState
from server.observability.calls import CallObserver
from server.security.tls import ServerTls
from server.transport.grpc.credentials import server_credentials
from server.transport.grpc.handlers import generic_handler
from server.transport.grpc.health import Health
from server.transport.grpc.reflection import REFLECTION_SERVICES, ReflectionService
from server.transport.grpc.unknown import UnknownMethods

DESCRIPTORS = (forward_v1.DESCRIPTOR, open_inference.DESCRIPTOR)
SERVICES = tuple(service.full_name for service in DESCRIPTORS)
REMEDY = "choose another with --host or --grpc-port"
HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"]
HEALTH_SERVICE = HEALTH.full_name


def service_handlers(
    services: Sequence[Service], observer: CallObserver, gate: CallGate, state: ServingState
) -> Sequence[grpc.GenericRpcHandler]:
    """Return what answers the calls of the services, of reflection, of health, and all others."""
    names = (*SERVICES, HEALTH_SERVICE, *(service.full_name for service in REFLECTION_SERVICES))
    reflection = (ReflectionService(names, service).table() for service in REFLECTION_SERVICES)
    collected = GenericOnly()
    health_pb2_grpc.add_HealthServicer_to_server(Health(SERVICES, state), cast("Any", collected))
    generic = (generic_handler(service, observer, gate) for service in (*services, *reflection))
    return [*generic, *collected.handlers, UnknownMethods(observer)]


def build_server(
    handlers: Sequence[grpc.GenericRpcHandler],
    options: Sequence[tuple[str, int]],
    interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
) -> grpc.aio.Server:
    """Return a server; it listens nowhere yet."""
    server = grpc.aio.server(
        interceptors=interceptors or None,
        options=[
            ("grpc.so_reuseport", 0),  # a second server on the port must fail, not share it
            *options,
        ],
    )
    server.add_generic_rpc_handlers(handlers)
    return server


class GenericOnly:
    """Takes services as generated code adds them, without registering their methods one by one.

    For each registered method grpc.aio has one more future to wait for at every
    call of any method: health would make each Predict slower.
    """

    def __init__(self) -> None:
        self.handlers: list[grpc.GenericRpcHandler] = []

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Add handlers."""
        self.handlers += handlers

    def add_registered_method_handlers(self, *_names_and_handlers: object) -> None:
        """Add none of them."""


def listen(server: grpc.aio.Server, host: str, port: int, tls: ServerTls | None = None) -> int:
    """Listen on every address of a host; return the port, which for 0 is one that was free.

    For a Unix domain socket it is 0: that has none.

    Raises:
        StartError: an address cannot be bound; the text names it.
    """
    if path := unix_path(host):
        claim_socket(path, REMEDY)
        _add(server, UNIX_PREFIX + quote(os.fsencode(path)), tls)
        return 0
    bound = bind_all(host, port, "gRPC", REMEDY)
    addresses = [address for address, _ in bound]
    if len(bound) > 1:
        port = bound[0][1].getsockname()[1]
    for _, each in bound:  # gRPC binds them itself
        each.close()
    if is_wildcard(addresses[-1].ip):
        addresses = addresses[-1:]  # from one of them gRPC listens on both by itself
    ports = [_add(server, address.at(port), tls) for address in addresses]
    return ports[0]


def _add(server: grpc.aio.Server, address: str, tls: ServerTls | None) -> int:
    try:
        if tls:
            return server.add_secure_port(address, server_credentials(tls))
        return server.add_insecure_port(address)
    except RuntimeError as error:
        raise StartError(
            f"can't listen for gRPC on {address}: gRPC does not get it, though it was free or its "
            f"folder is there and writable; {REMEDY}"
        ) from error
