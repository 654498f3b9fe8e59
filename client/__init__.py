"""Client of a Forward server: `ForwardClient` as a library, `python -m client` in the terminal."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from client.channel import Tls
    from client.connection import ForwardClient
    from client.errors import CredentialsError, ForwardError
    from client.results import Model, Prediction, Trace, TracedStage

__all__ = [
    "CredentialsError",
    "ForwardClient",
    "ForwardError",
    "Model",
    "Prediction",
    "Tls",
    "Trace",
    "TracedStage",
]

_MODULES = {
    "channel": ("Tls",),
    "connection": ("ForwardClient",),
    "errors": ("CredentialsError", "ForwardError"),
    "results": ("Model", "Prediction", "Trace", "TracedStage"),
}


def __getattr__(name: str) -> object:
    """Import a name when it is asked for: the command sets its signals before that."""
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"client.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
