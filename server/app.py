"""Put the server together and run it."""

import asyncio
import gc

import structlog

from server.config import ServerSettings
from server.engine.admission import AdmissionControl
from server.lifecycle.gate import CallGate
from server.lifecycle.shutdown import drain
from server.lifecycle.signals import leave_signals, on_hangup, stop_signal
from server.lifecycle.state import ServingState
from server.limits import RequestLimits
from server.observability.lines import LineWriter
from server.observability.metrics import ServerMetrics
from server.observability.metrics_http import serve_metrics
from server.observability.supervision import see_all_failures
from server.repository.current import ActiveModel, CurrentModel
from server.repository.loader import ModelLoader
from server.repository.poller import RepositoryPoller
from server.repository.versions import ModelRepository
from server.security.policy import open_security
from server.transport.grpc.auth import TokenInterceptor
from server.transport.grpc.options import (
    ConnectionLimits,
    affordable_connections,
    connection_options,
)
from server.transport.grpc.server import (
    HEALTH_SERVICE,
    build_server,
    listen,
    service_handlers,
)

# A call leaves three to five objects of grpc.aio's, and with them its metadata, up to 16 KiB: so
# many of up to 1,700 calls wait for the collector, which then looks through them alone.
GARBAGE_THRESHOLDS = (5_000, 10, 10)

log = structlog.get_logger()


async def serve(settings: ServerSettings, lines: LineWriter) -> None:
    """Serve until a signal, then drain.

    Raises:
        StartError: a port cannot be bound, the limits are too large, or a file of certificates,
            keys or tokens is wrong.
        ExportError: the model can't be loaded.
    """
    asked = asyncio.Event()  # to look for another version
    on_hangup(asked.set)
    limits = RequestLimits(settings.max_batch_images, settings.max_response_bytes)
    admission, metrics = AdmissionControl(settings.max_queue_images), ServerMetrics()
    metrics.watch_queue(lambda: admission.images)
    metrics.watch_log(lambda: lines.dropped)
    see_all_failures(metrics.count_failure)
    security = open_security(settings)
    security.follow(metrics)
    loader = ModelLoader(settings, limits, admission, metrics)
    finder = ModelRepository(
        settings.models_dir, settings.model, settings.model_version, loader.load
    )
    host = first_version(finder, metrics)
    stop = stop_signal()  # before this a signal ends the process at once: there is nothing to drain
    state, gate = ServingState(), CallGate()
    interceptors = []
    if security.tokens:
        exempt = () if settings.health_needs_token else (HEALTH_SERVICE,)
        interceptors.append(TokenInterceptor(security.tokens, exempt, metrics))
    server = build_server(
        service_handlers(host, limits, metrics, gate, state),
        state,
        connection_options(connection_limits(settings, loader.max_receive_bytes)),
        interceptors,
    )
    grpc_port = listen(server, settings.host, settings.grpc_port, security.tls)
    metrics_port = serve_metrics(metrics, settings.host_of_metrics, settings.metrics_port)
    await server.start()
    collect_garbage_seldom()
    reloader = RepositoryPoller(host, finder, metrics, settings.reload_interval, asked)
    reloading = asyncio.create_task(reloader.keep_running())
    log_ready(
        host.active,
        device_setting=settings.device,
        threads=loader.threads,
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
    reloading.cancel()
    await drain(server, state, gate, settings.drain_timeout, settings.drain_delay)
    reloader.close()
    leave_signals()
    log.info("stopped", refused=gate.refused)
    lines.flush()
    reloader.end_process_if_looking()


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


def first_version(finder: ModelRepository[ActiveModel], metrics: ServerMetrics) -> CurrentModel:
    """Load the version to begin with; return its host.

    Raises:
        StartError: its requests are larger than gRPC can take.
        ExportError: none can be loaded.
    """
    loaded, failure = finder.first()
    host = CurrentModel(loaded)
    host.failure = failure
    loaded.model.show(metrics)
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
