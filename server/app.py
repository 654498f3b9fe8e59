"""Builds the server from its settings, and runs it."""

import asyncio
import gc
from functools import partial

import structlog

from server.config import ServerSettings
from server.lifecycle.shutdown import drain
from server.lifecycle.signals import on_hangup, on_user_signal, release_signals, stop_signal
from server.observability.in_flight import log_in_flight
from server.observability.lines import LineWriter
from server.observability.metrics_http import serve_metrics
from server.repository.current import ActiveModel
from server.serving import open_serving
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
    native = choose_transport(settings)
    serving = open_serving(settings, reload_requested, native.images if native else None)
    stop = stop_signal()  # before this a signal ends the process at once: there is nothing to drain
    serving.metrics.watch_log(lambda: lines.dropped)
    state, gate, observer = serving.state, serving.gate, serving.observer
    on_user_signal(partial(log_in_flight, observer, lambda: serving.admission.images))
    entrance = Entrance(
        settings,
        serving.security,
        observer,
        state,
        gate,
        serving.loader.max_receive_bytes,
        native,
    )
    opened = await open_transports(serving.services, entrance)
    metrics_port = serve_metrics(serving.metrics, settings.host_of_metrics, settings.metrics_port)
    await opened.grpc.start()
    beside = []
    if isinstance(opened.grpc, NativeServer):
        lane = await opened.grpc.open_lane(serving.current, serving.limits, serving.loader.threads)
        beside.append(asyncio.create_task(lane.keep_updating()))
    tune_garbage_collection()
    beside.append(asyncio.create_task(serving.poller.keep_running()))
    log_ready(
        serving.current.active,
        device_setting=settings.device,
        threads=serving.loader.threads,
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
    await serving.close()
    release_signals()
    log.info("stopped", refused=gate.refused)
    lines.flush()
    serving.poller.end_process_if_polling()


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
