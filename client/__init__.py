"""Client of a Forward server: `ForwardClient` as a library, `python -m client` in the terminal."""

from client.connection import ForwardClient
from client.errors import ForwardError
from client.results import Model, Prediction, Trace, TracedStage

__all__ = ["ForwardClient", "ForwardError", "Model", "Prediction", "Trace", "TracedStage"]
