"""Attributes the rows of a traced run."""

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

from export.attribution.attribute import Attributions, Question, attribute, needed_stages
from export.attribution.network import Network
from server.engine.activations import TracedRun

Result = TypeVar("Result")


class AttributedRun(NamedTuple):
    """The attributions of a request's images."""

    attributions: Attributions
    seconds: float  # of the runtime's run and of the attribution


def attributing(
    network: Network, question: Question, pack: Callable[[AttributedRun], Result]
) -> tuple[Sequence[str], Callable[[TracedRun, slice], Result]]:
    """Return the stages that a run must have, and what makes a request's result of its rows."""
    stages = needed_stages(network, question.method)

    def attributed(run: TracedRun, rows: slice) -> Result:
        started = time.perf_counter()
        values = {name: run.values(name)[rows] for name in stages}
        found = attribute(network, values, question)
        return pack(AttributedRun(found, run.seconds + time.perf_counter() - started))

    return stages, attributed


def is_long(network: Network, question: Question) -> bool:
    """Tell whether an attribution takes the time of hundreds of forward passes.

    Integrated gradients cut the path of each image at every unit of the hidden layers before the
    last one.
    """
    return question.method == "integrated_gradients" and len(network.names("ReLU")) > 1
