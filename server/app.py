"""Put the server together and run it."""

import gc
from collections.abc import Sequence
from math import prod
from typing import Any

import grpc
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from forward.v1 import forward_pb2 as pb
from server.config import ServerSettings
from server.connections import ConnectionLimits, affordable_connections, connection_options
from server.corridor import Corridor
from server.cpus import available_cpus
from server.errors import StartError
from server.grpc_adapter import Method, StreamMethod, generic_handler
from server.host import ModelHost, activate
from server.lifecycle import CallGate, Health, drain, stop_signal
from server.metrics import ServerMetrics
from server.metrics_port import serve_metrics
from server.models import ServedModel, load_model, warm_up
from server.room import QueueRoom
from server.scheduler import GroupLimits
from server.service import ForwardService, Limits

FORWARD_SERVICE = pb.DESCRIPTOR.services_by_name["ForwardService"]
HEALTH_SERVICE = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
FLOAT32_BYTES = 4
GRPC_MOST_BYTES = 2**31 - 1
# A request may be this much larger than the largest batch before gRPC itself
# refuses it: so that a batch over the limit gets the error that names it.
RECEIVE_SLACK_FACTOR = 2
RECEIVE_SLACK_BYTES = 1 << 20
# A run of so many images takes about a millisecond, and to hand it to a thread and to
# wait for the interpreter lock on both sides costs more CPU than that is worth.
INLINE_IMAGES = 512
GARBAGE_THRESHOLDS = (20_000, 50, 50)

log = structlog.get_logger()


async def serve(settings: ServerSettings) -> None:
    """Serve until a signal, then drain.

    Raises:
        StartError: a port can't be had, or the limits are too large.
        ExportError: the model can't be loaded.
    """
    model = load_model(
        settings.models_dir,
        settings.model,
        settings.model_version,
        settings.runtime,
        settings.device,
        threads=settings.threads or available_cpus(),
    )
    limits = Limits(settings.max_batch_images, settings.max_response_bytes)
    max_receive_bytes = receive_limit(model, limits)
    warm_up(model, settings.max_batch_images)
    stop = stop_signal()  # before this a signal ends the process at once: there is nothing to drain
    metrics = ServerMetrics()
    room = QueueRoom(settings.max_queue_images)
    metrics.watch_queue(lambda: room.images)
    metrics.show_model(model)
    corridor = Corridor(model, room, group_limits(settings, model), metrics)
    host = ModelHost(activate(corridor, limits.max_batch_images))
    service = ForwardService(host, limits)
    health, gate = Health((FORWARD_SERVICE.full_name,)), CallGate()
    connections = connection_limits(settings, max_receive_bytes)
    server = build_server(service, health, gate, metrics, connections)
    grpc_port = listen(server, settings.host, settings.grpc_port)
    metrics_port = serve_metrics(metrics, settings.host, settings.metrics_port)
    await server.start()
    collect_garbage_seldom()
    log.info(
        "ready",
        model=model.manifest.name,
        version=model.manifest.version,
        runtime=model.runner.runtime,
        device=model.runner.device,
        provider=model.runner.provider,
        threads=settings.threads or available_cpus(),
        host=settings.host,
        grpc_port=grpc_port,
        metrics_port=metrics_port,
    )
    log.info(
        "draining",
        signal=await stop,
        delay_seconds=settings.drain_delay,
        timeout_seconds=settings.drain_timeout,
    )
    await drain(server, health, gate, settings.drain_timeout, settings.drain_delay)
    corridor.close()
    log.info("stopped", refused=gate.refused)


def collect_garbage_seldom() -> None:
    """Leave out what lives as long as the server, and look for cycles less often.

    grpc.aio makes some in every call, so the default threshold has the collector
    run several times a second through everything that is loaded.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GARBAGE_THRESHOLDS)


def group_limits(settings: ServerSettings, model: ServedModel) -> GroupLimits:
    """Return what requests are gathered by."""
    return GroupLimits(
        max_batch_images=settings.max_batch_images,
        max_queue_delay_seconds=settings.max_queue_delay_ms / 1000,
        # A run of torch's waits for another in the other lane's thread.
        inline_images=INLINE_IMAGES if model.runner.batch_invariant else 0,
        # Requests share a run only where that changes no bit of their answers.
        merge=model.runner.batch_invariant,
    )


def connection_limits(settings: ServerSettings, max_request_bytes: int) -> ConnectionLimits:
    """Return what connections are held to."""
    return ConnectionLimits(
        max_connections=affordable_connections(settings.max_connections),
        max_concurrent_streams=settings.max_concurrent_streams,
        max_metadata_bytes=settings.max_metadata_bytes,
        max_request_bytes=max_request_bytes,
        max_age=settings.max_connection_age,
        age_grace=settings.drain_timeout,
        keepalive_time=settings.keepalive_time,
    )


def build_server(
    service: ForwardService,
    health: Health,
    gate: CallGate,
    metrics: ServerMetrics,
    connections: ConnectionLimits,
) -> grpc.aio.Server:
    """Return a server of the Forward service, health and reflection; it listens nowhere yet."""
    server = grpc.aio.server(
        options=[
            ("grpc.so_reuseport", 0),  # a second server on the port shall fail, not share it
            *connection_options(connections),
        ]
    )
    methods: dict[str, Method | StreamMethod] = {
        "Predict": service.predict,
        "PredictStream": service.predict_stream,
        "Trace": service.trace,
        "GetModel": service.get_model,
    }
    server.add_generic_rpc_handlers((generic_handler(FORWARD_SERVICE, methods, metrics, gate),))
    generic: Any = GenericOnly(server)
    health_pb2_grpc.add_HealthServicer_to_server(health, generic)
    names = (FORWARD_SERVICE.full_name, HEALTH_SERVICE, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, generic)
    return server


class GenericOnly:
    """Takes services as generated code adds them, without registering their methods one by one.

    For each registered method grpc.aio has one more future to wait for at every
    call of any method: health and reflection would make each Predict dearer.
    """

    def __init__(self, server: grpc.aio.Server) -> None:
        self._server = server

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Add them."""
        self._server.add_generic_rpc_handlers(handlers)

    def add_registered_method_handlers(self, *_names_and_handlers: object) -> None:
        """Leave it at the generic ones."""


def receive_limit(model: ServedModel, limits: Limits) -> int:
    """Return the most bytes of a request that gRPC takes in.

    Raises:
        StartError: more than gRPC can take.
    """
    largest = limits.max_batch_images * prod(model.manifest.input_shape) * FLOAT32_BYTES
    if largest > GRPC_MOST_BYTES:
        raise StartError(
            f"--max-batch-images {limits.max_batch_images} makes requests of {largest} bytes; "
            f"gRPC takes at most {GRPC_MOST_BYTES}"
        )
    return min(largest * RECEIVE_SLACK_FACTOR + RECEIVE_SLACK_BYTES, GRPC_MOST_BYTES)


def listen(server: grpc.aio.Server, host: str, port: int) -> int:
    """Bind the gRPC port; return it, which for 0 is the one that was free."""
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        return server.add_insecure_port(address)
    except RuntimeError as error:
        raise StartError(
            f"can't listen for gRPC on {address}: the address is not of this machine or the port "
            "is taken; choose another with --host or --grpc-port"
        ) from error
