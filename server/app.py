"""Put the server together and run it."""

import gc
from collections.abc import Sequence
from math import prod
from typing import Any

import grpc
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from prometheus_client import start_http_server

from forward.v1 import forward_pb2 as pb
from inference import open_inference_pb2 as oip
from server.config import ServerSettings
from server.corridor import Corridor
from server.cpus import available_cpus
from server.errors import StartError
from server.grpc_adapter import Method, StreamMethod, generic_handler
from server.host import ModelHost, activate
from server.lifecycle import CallGate, Health, drain, stop_signal
from server.metrics import ServerMetrics
from server.models import ServedModel, load_model, warm_up
from server.open_inference import InferenceService
from server.room import QueueRoom
from server.scheduler import GroupLimits
from server.security import open_security
from server.service import ForwardService, Limits
from server.tls import ServerTls
from server.tokens import TokenInterceptor

FORWARD_SERVICE = pb.DESCRIPTOR.services_by_name["ForwardService"]
INFERENCE_SERVICE = oip.DESCRIPTOR.services_by_name["GRPCInferenceService"]
SERVICES = (FORWARD_SERVICE.full_name, INFERENCE_SERVICE.full_name)
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
        StartError: a port can't be had, the limits are too large, or a file of certificates,
            keys or tokens is wrong.
        ExportError: the model can't be loaded.
    """
    security = open_security(settings)
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
    health, gate = Health(SERVICES), CallGate()
    handlers = service_handlers(host, limits, metrics, gate)
    interceptors = []
    if security.tokens:
        exempt = () if settings.health_needs_token else (HEALTH_SERVICE,)
        interceptors.append(TokenInterceptor(security.tokens, exempt, metrics))
    server = build_server(handlers, health, max_receive_bytes, interceptors)
    grpc_port = listen(server, settings.host, settings.grpc_port, security.tls)
    if security.tls:
        metrics.watch_certificate(security.tls.expiry_timestamp)
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
    log.info("draining", signal=await stop, timeout_seconds=settings.drain_timeout)
    await drain(server, health, gate, settings.drain_timeout)
    corridor.close()
    log.info("stopped")


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


def service_handlers(
    host: ModelHost, limits: Limits, metrics: ServerMetrics, gate: CallGate
) -> Sequence[grpc.GenericRpcHandler]:
    """Return what answers the calls of each service."""
    forward = ForwardService(host, limits)
    forward_methods: dict[str, Method | StreamMethod] = {
        "Predict": forward.predict,
        "PredictStream": forward.predict_stream,
        "Trace": forward.trace,
        "GetModel": forward.get_model,
    }
    inference = InferenceService(host, limits, lambda: gate.closed)
    # Who asks for health while the server drains is to get the answer.
    inference_health: dict[str, Method | StreamMethod] = {
        "ServerLive": inference.server_live,
        "ServerReady": inference.server_ready,
        "ModelReady": inference.model_ready,
    }
    inference_methods: dict[str, Method | StreamMethod] = {
        **inference_health,
        "ServerMetadata": inference.server_metadata,
        "ModelMetadata": inference.model_metadata,
        "ModelConfig": inference.model_config,
        "ModelInfer": inference.model_infer,
    }
    return (
        generic_handler(FORWARD_SERVICE, forward_methods, metrics, gate),
        generic_handler(
            INFERENCE_SERVICE, inference_methods, metrics, gate, ungated=inference_health
        ),
    )


def build_server(
    handlers: Sequence[grpc.GenericRpcHandler],
    health: Health,
    max_receive_bytes: int,
    interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
) -> grpc.aio.Server:
    """Return a server of the services, health and reflection; it listens nowhere yet."""
    server = grpc.aio.server(
        interceptors=interceptors or None,
        options=[
            ("grpc.max_receive_message_length", max_receive_bytes),
            ("grpc.so_reuseport", 0),  # a second server on the port shall fail, not share it
        ],
    )
    server.add_generic_rpc_handlers(handlers)
    generic: Any = GenericOnly(server)
    health_pb2_grpc.add_HealthServicer_to_server(health, generic)
    names = (*SERVICES, HEALTH_SERVICE, reflection.SERVICE_NAME)
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


def listen(server: grpc.aio.Server, host: str, port: int, tls: ServerTls | None = None) -> int:
    """Bind the gRPC port; return it, which for 0 is the one that was free."""
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        if tls:
            return server.add_secure_port(address, tls.server_credentials())
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
