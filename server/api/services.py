"""The services of the server, for every transport the same ones."""

from server.api.forward_v1.service import ForwardService
from server.api.methods import Service
from server.api.open_inference.service import InferenceService, Statuses
from server.lifecycle.state import ServingState
from server.limits import RequestLimits
from server.observability.metrics import ServerMetrics
from server.repository.current import CurrentModel


def build_services(
    current: CurrentModel,
    limits: RequestLimits,
    state: ServingState,
    statuses: Statuses,
    metrics: ServerMetrics,
) -> tuple[Service, Service]:
    """Return forward.v1 and the Open Inference Protocol, answered by the current model.

    Args:
        current: the model.
        limits: of requests and responses.
        state: tells if the server drains.
        statuses: of the versions in the model's folder, when the one that is served is given.
        metrics: what the statistics tell.
    """
    inference = InferenceService(current, limits, lambda: state.is_draining, statuses, metrics)
    return (
        ForwardService(current, limits).table(),
        inference.table(),
    )
