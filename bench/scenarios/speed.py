"""Measure every cell on every server, in rounds: within one the servers of a cell in turn."""

import os
import statistics
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from bench.load.processes import Served, running
from bench.scenarios.cases import ECHO, INLINE, OURS, TRACED, TUTORIAL, Cell, Request
from bench.scenarios.check import check
from bench.scenarios.measure import Figures, forward_microseconds, measure
from export.bundle import find_bundle
from export.runners import Runner, open_runner

SERVER = ("server", "--grpc-port", "0", "--metrics-port", "0", "--log-format", "json")
OUR_SERVER = (*SERVER, "--device", "cpu")
MODULES = {
    TUTORIAL: ("bench.servers.tutorial",),
    INLINE: ("bench.servers.inline",),
    OURS: OUR_SERVER,
    TRACED: OUR_SERVER,
}
Key = tuple[Cell, str]


@dataclass
class Results:
    """The figures of all rounds."""

    rounds: dict[Key, list[Figures]] = field(default_factory=dict)
    forwards: dict[int, list[float]] = field(default_factory=dict)

    def has(self, cell: Cell, server: str) -> bool:
        """Tell whether a cell was measured on a server."""
        return (cell, server) in self.rounds

    def all(self, cell: Cell, server: str, of: Callable[[Figures], float]) -> list[float]:
        """Return a figure of each round."""
        return [of(figures) for figures in self.rounds[cell, server]]

    def median(self, cell: Cell, server: str, of: Callable[[Figures], float]) -> float:
        """Return the median of a figure over the rounds."""
        return statistics.median(self.all(cell, server, of))

    def cpu(self, cell: Cell, server: str) -> float:
        """Return the median of the server's CPU, in microseconds."""
        return self.median(cell, server, lambda figures: figures.cpu)

    def forward(self, images: int) -> float:
        """Return the median of a forward pass in process, in microseconds."""
        return statistics.median(self.forwards[images])

    def floor(self, cell: Cell) -> float:
        """Return F(n): the echo of the same bytes from the same callers, and the forward pass."""
        return self.cpu(cell, ECHO) + self.forward(cell.request.images)


def open_model() -> Runner:
    """Open the bundled model in process, as the servers have it."""
    return open_runner(find_bundle(Path("models"), "mnist", None), "onnx", "cpu")


def run(cells: Sequence[Cell], rounds: int, seconds: int) -> Results:
    """Start the servers, check their answers, and measure.

    Raises:
        WrongAnswerError: a server's answer is not that of ONNX Runtime in process.
        FailedRequestsError: a server answered with errors.
    """
    with ExitStack() as stack:
        bench = _Bench(stack, cells, seconds)
        for turn in range(rounds):
            for cell in cells:
                bench.measure(cell, turn)
                say(f"round {turn + 1} of {rounds}: {cell.name}")
    return bench.results


class _Bench:
    """The servers, all started and checked."""

    def __init__(self, stack: ExitStack, cells: Sequence[Cell], seconds: int) -> None:
        self.results = Results()
        self._seconds = seconds
        self._runner = open_model()
        self._answer_bytes: dict[tuple[Request, str], int] = {}
        wanted = {name for cell in cells for name in cell.servers} - {ECHO}
        self._servers = {name: _start(stack, *MODULES[name]) for name in sorted(wanted)}
        for cell in cells:
            self._check(cell)
        self._echoes = {
            request: _start(stack, "bench.servers.echo", str(self._answer_bytes[request, ECHO]))
            for request in dict.fromkeys(cell.request for cell in cells if ECHO in cell.servers)
        }
        say("every server's answers are right")

    def measure(self, cell: Cell, turn: int) -> None:
        """Measure a cell on its servers."""
        first = turn % len(cell.servers)  # another one begins each time
        for name in cell.servers[first:] + cell.servers[:first]:
            served = self._echoes[cell.request] if name == ECHO else self._servers[name]
            answer_bytes = self._answer_bytes[cell.request, name]
            figures = measure(name, served, cell, self._seconds, answer_bytes)
            self.results.rounds.setdefault((cell, name), []).append(figures)
        forward = forward_microseconds(self._runner, cell.request)
        self.results.forwards.setdefault(cell.request.images, []).append(forward)

    def _check(self, cell: Cell) -> None:
        for name in cell.servers:
            if name != ECHO and (cell.request, name) not in self._answer_bytes:
                size = check(name, self._servers[name].port, cell.request, self._runner)
                self._answer_bytes[cell.request, name] = size
        if ECHO in cell.servers:
            self._answer_bytes[cell.request, ECHO] = self._answer_bytes[cell.request, OURS]


def _start(stack: ExitStack, module: str, *arguments: str) -> Served:
    environment = {**os.environ, "ORT_DISABLE_TELEMETRY": "1"}
    return stack.enter_context(running(module, *arguments, environment=environment))


def say(text: str) -> None:
    """Tell how far it is."""
    print(text, file=sys.stderr, flush=True)
