"""The services of the server, for every transport the same ones."""

from server.api.forward_v1.service import ForwardService
from server.api.methods import Service
from server.api.open_inference.service import InferenceService
from server.lifecycle.state import ServingState
from server.limits import RequestLimits
from server.repository.current import CurrentModel


def build_services(
    current: CurrentModel, limits: RequestLimits, state: ServingState
) -> tuple[Service, Service]:
    """Return forward.v1 and the Open Inference Protocol, answered by the current model."""
    return (
        ForwardService(current, limits).table(),
        InferenceService(current, limits, lambda: state.is_draining).table(),
    )
