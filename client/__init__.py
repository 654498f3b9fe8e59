"""Client of a Forward server: `ForwardClient` as a library, `python -m client` in the terminal."""

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
