"""Client of a Forward server: `ForwardClient` as a library, `forward-client` in the terminal."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from forward_client.attributions import Attribution
    from forward_client.channel import Tls
    from forward_client.comparisons import Comparison, RuntimeComparison, StageComparison
    from forward_client.connection import ForwardClient
    from forward_client.errors import CredentialsError, ForwardError
    from forward_client.interventions import Intervention
    from forward_client.results import (
        Model,
        Prediction,
        Reload,
        ReloadFailure,
        Trace,
        TracedStage,
    )
    from forward_client.trace_parts import Certificate, UnitStatistics
    from forward_client.training import Epoch, Parameters, StageParameters, TrainingHistory

__all__ = [
    "Attribution",
    "Certificate",
    "Comparison",
    "CredentialsError",
    "Epoch",
    "ForwardClient",
    "ForwardError",
    "Intervention",
    "Model",
    "Parameters",
    "Prediction",
    "Reload",
    "ReloadFailure",
    "RuntimeComparison",
    "StageComparison",
    "StageParameters",
    "Tls",
    "Trace",
    "TracedStage",
    "TrainingHistory",
    "UnitStatistics",
]

_HOMES = {
    "Attribution": "attributions",
    "Certificate": "trace_parts",
    "Comparison": "comparisons",
    "CredentialsError": "errors",
    "Epoch": "training",
    "ForwardClient": "connection",
    "ForwardError": "errors",
    "Intervention": "interventions",
    "Model": "results",
    "Parameters": "training",
    "Prediction": "results",
    "Reload": "results",
    "ReloadFailure": "results",
    "RuntimeComparison": "comparisons",
    "StageComparison": "comparisons",
    "StageParameters": "training",
    "Tls": "channel",
    "Trace": "results",
    "TracedStage": "results",
    "TrainingHistory": "training",
    "UnitStatistics": "trace_parts",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is asked for: the command sets its signals before that."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    """Return the public names, imported or not: for completion and `help`."""
    return sorted({*globals(), *__all__})
