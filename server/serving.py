"""What answers calls, whatever carries them here: the model and the services, built of settings."""

import asyncio
import os
from dataclasses import dataclass
from functools import partial

from server.api.methods import Service
from server.api.services import build_services
from server.config import ServerSettings
from server.engine.admission import AdmissionControl, ImageCounter
from server.lifecycle.gate import CallGate
from server.lifecycle.state import ServingState
from server.limits import RequestLimits
from server.observability.build_info import publish_build_info
from server.observability.calls import CallObserver
from server.observability.engine_metrics import BATCHERS, BatcherName
from server.observability.event_loop import EventLoopLag
from server.observability.metrics import ServerMetrics
from server.observability.supervision import report_unhandled_failures
from server.observability.tracing import open_tracing
from server.repository.current import ActiveModel, CurrentModel
from server.repository.loader import ModelLoader
from server.repository.poller import RepositoryPoller
from server.repository.versions import ModelRepository
from server.security.policy import Security, open_security


@dataclass(frozen=True)
class Serving:
    """The services of one model repository, with all that they and their transports share."""

    limits: RequestLimits
    admission: AdmissionControl
    metrics: ServerMetrics
    security: Security
    loader: ModelLoader
    current: CurrentModel
    state: ServingState
    gate: CallGate
    observer: CallObserver
    services: tuple[Service, Service]
    poller: RepositoryPoller
    lag: EventLoopLag

    async def close(self) -> None:
        """Finish what runs beside the calls, after the last of them."""
        await self.observer.close()
        self.poller.close()
        self.lag.stop()


def open_serving(
    settings: ServerSettings,
    reload_requested: asyncio.Event,
    images: ImageCounter | None = None,
) -> Serving:
    """Load the model and build its services, on the running event loop.

    Args:
        settings: of the server.
        reload_requested: lets the poller look for another version at once.
        images: counts those that wait or run, if the native transport does.

    Raises:
        StartError: the limits are too large, or a file of certificates, keys or tokens is wrong.
        ExportError: no version of the model can be loaded.
    """
    limits = RequestLimits(
        settings.max_batch_images, settings.max_response_bytes, settings.max_comparisons
    )
    admission = AdmissionControl(settings.max_queue_images, images)
    metrics = ServerMetrics()
    metrics.engine.watch_queue(lambda: admission.images, settings.max_queue_images)
    publish_build_info(metrics.registry, has_native=images is not None)
    lag = EventLoopLag(metrics.registry)
    report_unhandled_failures(metrics.count_failure)
    security = open_security(settings)
    security.follow(metrics)
    loader = ModelLoader(settings, limits, admission, metrics)
    repository = ModelRepository(
        settings.models_dir, settings.model, settings.model_version, loader.load
    )
    current = _load_first(repository, metrics)
    for batcher in BATCHERS:
        metrics.engine.add_oldest(batcher, partial(_oldest_seconds, current, batcher))
    metrics.drift.follow(lambda: current.active.instance.drift)
    state, gate = ServingState(), CallGate()
    observer = CallObserver(metrics, settings.access_log)
    if tracer := open_tracing(os.environ):
        observer.trace_calls(tracer)
    return Serving(
        limits=limits,
        admission=admission,
        metrics=metrics,
        security=security,
        loader=loader,
        current=current,
        state=state,
        gate=gate,
        observer=observer,
        services=build_services(current, limits, state, repository.statuses, metrics),
        poller=RepositoryPoller(
            current, repository, metrics, settings.reload_interval, reload_requested
        ),
        lag=lag,
    )


def _load_first(repository: ModelRepository[ActiveModel], metrics: ServerMetrics) -> CurrentModel:
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


def _oldest_seconds(current: CurrentModel, batcher: BatcherName) -> float:
    """Return how long the oldest request for the current model has waited."""
    return current.active.instance.oldest_seconds(batcher)
