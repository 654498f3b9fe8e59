"""Measure every case on every server, in rounds: within one the servers of a case in turn."""

import os
import statistics
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from bench.load.processes import Served, running
from bench.load.requests import Request
from bench.scenarios.cases import ECHO, INLINE, OURS, TRACED, TUTORIAL, Case
from bench.scenarios.check import check
from bench.scenarios.measure import Figures, forward_microseconds, measure
from export.bundle import find_bundle
from export.runtimes import InterveningRunner, open_runner

PORTS = ("--grpc-port", "0", "--http-port", "0", "--metrics-port", "0")
SERVER = ("server", *PORTS, "--log-format", "json")
OUR_SERVER = (*SERVER, "--device", "cpu")
MODULES = {
    TUTORIAL: ("bench.servers.tutorial",),
    INLINE: ("bench.servers.inline",),
    OURS: OUR_SERVER,
    TRACED: OUR_SERVER,
}
Key = tuple[Case, str]


@dataclass
class Results:
    """The figures of all rounds."""

    rounds: dict[Key, list[Figures]] = field(default_factory=dict)
    forwards: dict[int, list[float]] = field(default_factory=dict)

    def has(self, case: Case, server: str) -> bool:
        """Tell whether a case was measured on a server."""
        return (case, server) in self.rounds

    def all(self, case: Case, server: str, of: Callable[[Figures], float]) -> list[float]:
        """Return a figure of each round."""
        return [of(figures) for figures in self.rounds[case, server]]

    def median(self, case: Case, server: str, of: Callable[[Figures], float]) -> float:
        """Return the median of a figure over the rounds."""
        return statistics.median(self.all(case, server, of))

    def cpu(self, case: Case, server: str) -> float:
        """Return the median of the server's CPU, in microseconds."""
        return self.median(case, server, lambda figures: figures.cpu)

    def forward(self, images: int) -> float:
        """Return the median of a forward pass in process, in microseconds."""
        return statistics.median(self.forwards[images])

    def floor(self, case: Case) -> float:
        """Return F(n): the echo of the same bytes from the same callers, and the forward pass."""
        return self.cpu(case, ECHO) + self.forward(case.request.images)


def open_model() -> InterveningRunner:
    """Open the bundled model in process, as the servers have it."""
    return open_runner(find_bundle(Path("models"), "mnist", None), "onnx", "cpu")


def run(cases: Sequence[Case], rounds: int, seconds: int) -> Results:
    """Start the servers, check their answers, and measure.

    Raises:
        WrongAnswerError: a server's answer is not that of ONNX Runtime in process.
        FailedRequestsError: a server answered with errors.
    """
    with ExitStack() as stack:
        bench = _Bench(stack, cases, seconds)
        for turn in range(rounds):
            for case in cases:
                bench.measure(case, turn)
                say(f"round {turn + 1} of {rounds}: {case.name}")
    return bench.results


class _Bench:
    """The servers, all started and checked."""

    def __init__(self, stack: ExitStack, cases: Sequence[Case], seconds: int) -> None:
        self.results = Results()
        self._seconds = seconds
        self._runner = open_model()
        self._answer_bytes: dict[tuple[Request, str], int] = {}
        wanted = {name for case in cases for name in case.servers} - {ECHO}
        self._servers = {name: _start(stack, *MODULES[name]) for name in sorted(wanted)}
        for case in cases:
            self._check(case)
        self._echoes = {
            request: _start(stack, "bench.servers.echo", str(self._answer_bytes[request, ECHO]))
            for request in dict.fromkeys(case.request for case in cases if ECHO in case.servers)
        }
        say("every server's answers are right")

    def measure(self, case: Case, turn: int) -> None:
        """Measure a case on its servers."""
        first = turn % len(case.servers)  # another one begins each time
        for name in case.servers[first:] + case.servers[:first]:
            served = self._echoes[case.request] if name == ECHO else self._servers[name]
            answer_bytes = self._answer_bytes[case.request, name]
            figures = measure(name, served, case, self._seconds, answer_bytes)
            self.results.rounds.setdefault((case, name), []).append(figures)
        forward = forward_microseconds(self._runner, case.request)
        self.results.forwards.setdefault(case.request.images, []).append(forward)

    def _check(self, case: Case) -> None:
        for name in case.servers:
            if name != ECHO and (case.request, name) not in self._answer_bytes:
                size = check(name, self._servers[name].port, case.request, self._runner)
                self._answer_bytes[case.request, name] = size
        if ECHO in case.servers:
            self._answer_bytes[case.request, ECHO] = self._answer_bytes[case.request, OURS]


def _start(stack: ExitStack, module: str, *arguments: str) -> Served:
    environment = {**os.environ, "ORT_DISABLE_TELEMETRY": "1"}
    return stack.enter_context(running(module, *arguments, environment=environment))


def say(text: str) -> None:
    """Tell how far it is."""
    print(text, file=sys.stderr, flush=True)
