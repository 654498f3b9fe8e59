"""Builds the server from its settings, and runs it."""

import asyncio
import gc
import os
from functools import partial

import structlog

from server.api.services import build_services
from server.config import ServerSettings
from server.engine.admission import AdmissionControl
from server.lifecycle.gate import CallGate
from server.lifecycle.shutdown import drain
from server.lifecycle.signals import on_hangup, on_user_signal, release_signals, stop_signal
from server.lifecycle.state import ServingState
from server.limits import RequestLimits
from server.observability.build_info import publish_build_info
from server.observability.calls import CallObserver
from server.observability.engine_metrics import BATCHERS, BatcherName
from server.observability.event_loop import EventLoopLag
from server.observability.in_flight import log_in_flight
from server.observability.lines import LineWriter
from server.observability.metrics import ServerMetrics
from server.observability.metrics_http import serve_metrics
from server.observability.supervision import report_unhandled_failures
from server.observability.tracing import open_tracing
from server.repository.current import ActiveModel, CurrentModel
from server.repository.loader import ModelLoader
from server.repository.poller import RepositoryPoller
from server.repository.versions import ModelRepository
from server.security.policy import open_security
from server.transport.native.server import NativeServer
from server.transports import Entrance, choose_transport, open_transports

# A call leaves three to five objects of grpc.aio's, and with them its metadata, up to 16 KiB: so
# many of up to 1,700 calls wait for the collector, which then looks through them alone.
GARBAGE_THRESHOLDS = (5_000, 10, 10)

log = structlog.get_logger()


async def serve(settings: ServerSettings, lines: LineWriter) -> None:
    """Serve until a signal, then shut down gracefully.

    Raises:
        StartError: a port cannot be bound, the limits are too large, or a file of certificates,
            keys or tokens is wrong.
        ExportError: no version of the model can be loaded.
    """
    reload_requested = asyncio.Event()
    on_hangup(reload_requested.set)
    limits = RequestLimits(
        settings.max_batch_images, settings.max_response_bytes, settings.max_comparisons
    )
    native = choose_transport(settings)
    images = native.images if native else None
    admission = AdmissionControl(settings.max_queue_images, images)
    metrics = ServerMetrics()
    metrics.engine.watch_queue(lambda: admission.images, settings.max_queue_images)
    metrics.watch_log(lambda: lines.dropped)
    publish_build_info(metrics.registry, has_native=native is not None)
    lag = EventLoopLag(metrics.registry)
    report_unhandled_failures(metrics.count_failure)
    security = open_security(settings)
    security.follow(metrics)
    loader = ModelLoader(settings, limits, admission, metrics)
    repository = ModelRepository(
        settings.models_dir, settings.model, settings.model_version, loader.load
    )
    current = load_first(repository, metrics)
    for batcher in BATCHERS:
        metrics.engine.add_oldest(batcher, partial(oldest_seconds, current, batcher))
    metrics.drift.follow(lambda: current.active.instance.drift)
    stop = stop_signal()  # before this a signal ends the process at once: there is nothing to drain
    state, gate = ServingState(), CallGate()
    observer = CallObserver(metrics, settings.access_log)
    if tracer := open_tracing(os.environ):
        observer.trace_calls(tracer)
    on_user_signal(partial(log_in_flight, observer, lambda: admission.images))
    services = build_services(current, limits, state, repository.statuses, metrics)
    entrance = Entrance(settings, security, observer, state, gate, loader.max_receive_bytes, native)
    opened = await open_transports(services, entrance)
    metrics_port = serve_metrics(metrics, settings.host_of_metrics, settings.metrics_port)
    await opened.grpc.start()
    beside = []
    if isinstance(opened.grpc, NativeServer):
        lane = await opened.grpc.open_lane(current, limits, loader.threads)
        beside.append(asyncio.create_task(lane.keep_updating()))
    tune_garbage_collection()
    poller = RepositoryPoller(
        current, repository, metrics, settings.reload_interval, reload_requested
    )
    beside.append(asyncio.create_task(poller.keep_running()))
    log_ready(
        current.active,
        device_setting=settings.device,
        threads=loader.threads,
        host=settings.host,
        transport=opened.grpc_name,
        grpc_port=opened.grpc_port,
        http_port=opened.http_port,
        metrics_port=metrics_port,
        page=opened.page,
    )
    log.info(
        "draining",
        signal=await stop,
        delay_seconds=settings.drain_delay,
        timeout_seconds=settings.drain_timeout,
    )
    for task in beside:
        task.cancel()
    await drain(opened.transports, state, gate, settings.drain_timeout, settings.drain_delay)
    await observer.close()
    poller.close()
    lag.stop()
    release_signals()
    log.info("stopped", refused=gate.refused)
    lines.flush()
    poller.end_process_if_polling()


def load_first(repository: ModelRepository[ActiveModel], metrics: ServerMetrics) -> CurrentModel:
    """Load the version to begin with; return it as the current one.

    Raises:
        StartError: its requests are larger than gRPC can take.
        ExportError: none can be loaded.
    """
    loaded, failure = repository.first()
    current = CurrentModel(loaded)
    current.failure = failure
    loaded.model.publish_info(metrics)
    metrics.model.record_poll(loaded=False, failed=0, is_well=failure is None)
    return current


def oldest_seconds(current: CurrentModel, batcher: BatcherName) -> float:
    """Return how long the oldest request for the current model has waited."""
    return current.active.instance.oldest_seconds(batcher)


def log_ready(active: ActiveModel, **settings: object) -> None:
    """Log what is served, and where."""
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


def tune_garbage_collection() -> None:
    """Exempt the objects that live as long as the server, and collect cycles less often.

    grpc.aio makes cycles in every call, so with the default threshold the collector would
    traverse everything that is loaded several times a second.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GARBAGE_THRESHOLDS)
