"""Put the server together and run it."""

import asyncio
import gc
from collections.abc import Sequence
from typing import Any

import grpc
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from prometheus_client import start_http_server

from forward.v1 import forward_pb2 as pb
from server.config import ServerSettings
from server.errors import StartError
from server.grpc_adapter import Method, StreamMethod, generic_handler
from server.host import ActiveModel, ModelHost
from server.lifecycle import CallGate, Health, drain, ignore_hangup, on_hangup, stop_signal
from server.loader import ModelLoader
from server.metrics import ServerMetrics
from server.reload import Reloader
from server.room import QueueRoom
from server.service import ForwardService, Limits
from server.versions import VersionFinder

FORWARD_SERVICE = pb.DESCRIPTOR.services_by_name["ForwardService"]
HEALTH_SERVICE = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
GARBAGE_THRESHOLDS = (20_000, 50, 50)

log = structlog.get_logger()


async def serve(settings: ServerSettings) -> None:
    """Serve until a signal, then drain.

    Raises:
        StartError: a port can't be had, or the limits are too large.
        ExportError: the model can't be loaded.
    """
    asked = asyncio.Event()  # to look for another version
    on_hangup(asked.set)
    limits = Limits(settings.max_batch_images, settings.max_response_bytes)
    room, metrics = QueueRoom(settings.max_queue_images), ServerMetrics()
    metrics.watch_queue(lambda: room.images)
    loader = ModelLoader(settings, limits, room, metrics)
    finder = VersionFinder(settings.models_dir, settings.model, settings.model_version, loader.load)
    host = first_version(finder, metrics)
    stop = stop_signal()  # before this a signal ends the process at once: there is nothing to drain
    service = ForwardService(host, limits)
    health, gate = Health((FORWARD_SERVICE.full_name,)), CallGate()
    server = build_server(service, health, gate, metrics, loader.max_receive_bytes)
    grpc_port = listen(server, settings.host, settings.grpc_port)
    metrics_port = serve_metrics(metrics, settings.host, settings.metrics_port)
    await server.start()
    collect_garbage_seldom()
    reloader = Reloader(host, finder, metrics, settings.reload_interval, asked)
    reloading = asyncio.create_task(reloader.run())
    log_ready(
        host.active,
        threads=loader.threads,
        host=settings.host,
        grpc_port=grpc_port,
        metrics_port=metrics_port,
    )
    log.info("draining", signal=await stop, timeout_seconds=settings.drain_timeout)
    reloading.cancel()
    await drain(server, health, gate, settings.drain_timeout)
    reloader.close()
    ignore_hangup()
    log.info("stopped")
    reloader.end_process_if_looking()


def first_version(finder: VersionFinder[ActiveModel], metrics: ServerMetrics) -> ModelHost:
    """Load the version to begin with; return its host.

    Raises:
        StartError: its requests are larger than gRPC can take.
        ExportError: none can be loaded.
    """
    loaded, failure = finder.first()
    host = ModelHost(loaded)
    host.failure = failure
    metrics.show_model(loaded.model)
    metrics.observe_look(loaded=False, failed=0, is_well=failure is None)
    return host


def log_ready(active: ActiveModel, **settings: object) -> None:
    """Say what is served, and where."""
    manifest, runner = active.model.manifest, active.model.runner
    log.info(
        "ready",
        model=manifest.name,
        version=manifest.version,
        runtime=runner.runtime,
        device=runner.device,
        provider=runner.provider,
        **settings,
    )


def collect_garbage_seldom() -> None:
    """Leave out what lives as long as the server, and look for cycles less often.

    grpc.aio makes some in every call, so the default threshold has the collector
    run several times a second through everything that is loaded.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GARBAGE_THRESHOLDS)


def build_server(
    service: ForwardService,
    health: Health,
    gate: CallGate,
    metrics: ServerMetrics,
    max_receive_bytes: int,
) -> grpc.aio.Server:
    """Return a server of the Forward service, health and reflection; it listens nowhere yet."""
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", max_receive_bytes),
            ("grpc.so_reuseport", 0),  # a second server on the port shall fail, not share it
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


def serve_metrics(metrics: ServerMetrics, host: str, port: int) -> int:
    """Serve /metrics from a thread; return the port."""
    try:
        http_server, _ = start_http_server(port, addr=host, registry=metrics.registry)
    except OSError as error:
        raise StartError(
            f"can't serve metrics on {host} port {port}: {error.strerror}; "
            "choose another with --host or --metrics-port"
        ) from error
    return int(http_server.server_port)
