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
from bench.scenarios.cases import (
    BOTH,
    ECHO,
    ECHOES,
    INLINE,
    NATIVE_ECHO,
    OURS,
    TRACED,
    TUTORIAL,
    Case,
)
from bench.scenarios.check import check
from bench.scenarios.measure import Figures, forward_microseconds, measure
from bench.scenarios.rest import Rest, at_rest
from bench.servers.forward import TRANSPORTS, Transport, forward
from export.bundle import find_bundle
from export.runtimes import InterveningRunner, open_runner

ECHO_MODULES = {ECHO: "bench.servers.echo", NATIVE_ECHO: "bench.servers.native_echo"}
MODULES = {TUTORIAL: ("bench.servers.tutorial",), INLINE: ("bench.servers.inline",)}
Key = tuple[Case, str]


@dataclass
class Results:
    """The figures of all rounds."""

    rounds: dict[Key, list[Figures]] = field(default_factory=dict)
    forwards: dict[int, list[float]] = field(default_factory=dict)
    rest: dict[Transport, list[Rest]] = field(default_factory=dict)

    def has(self, case: Case, server: str) -> bool:
        """Tell whether a case was measured on a server."""
        return (case, server) in self.rounds

    def all(self, case: Case, server: str, of: Callable[[Figures], float]) -> list[float]:
        """Return a figure of each round."""
        return [of(figures) for figures in self.rounds[case, server]]

    def median(self, case: Case, server: str, of: Callable[[Figures], float]) -> float:
        """Return the median of a figure over the rounds."""
        return statistics.median(self.all(case, server, of))

    def ratio(self, case: Case, one: str, other: str, of: Callable[[Figures], float]) -> float:
        """Return the median of one server's figure as a multiple of another's, round by round."""
        pairs = zip(self.all(case, one, of), self.all(case, other, of), strict=True)
        return statistics.median(a / b for a, b in pairs)

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


def run(
    cases: Sequence[Case],
    transports: Sequence[Transport],
    rounds: int,
    seconds: float,
    *,
    rests: bool,
) -> Results:
    """Start the servers, check their answers, and measure; memory at rest, if asked for, first.

    Raises:
        WrongAnswerError: a server's answer is not that of ONNX Runtime in process.
        FailedRequestsError: a server answered with errors.
    """
    rest = at_rest(transports, rounds) if rests else {}
    with ExitStack() as stack:
        bench = _Bench(stack, cases, transports, seconds)
        bench.results.rest = rest
        for turn in range(rounds):
            for case in cases:
                bench.measure(case, turn)
                say(f"round {turn + 1} of {rounds}: {case.name}")
    return bench.results


class _Bench:
    """The servers, all started and checked."""

    def __init__(
        self,
        stack: ExitStack,
        cases: Sequence[Case],
        transports: Sequence[Transport],
        seconds: float,
    ) -> None:
        self.results = Results()
        self._seconds = seconds
        self._runner = open_model()
        self._answer_bytes: dict[tuple[Request, str], int] = {}
        self._left_out = {
            *(
                each[name]
                for each in (OURS, TRACED)
                for name in TRANSPORTS
                if name not in transports
            ),
            *([] if "native" in transports else [NATIVE_ECHO]),
        }
        modules = {
            **MODULES,
            **{each[name]: forward(name) for each in (OURS, TRACED) for name in transports},
        }
        wanted = {name for case in cases for name in self._names(case)}
        self._servers = {name: _start(stack, *modules[name]) for name in modules if name in wanted}
        for case in cases:
            self._check(case)
        self._echoes = {
            (request, name): _start(
                stack, ECHO_MODULES[name], str(self._answer_bytes[request, name])
            )
            for request, name in dict.fromkeys(
                (case.request, name)
                for case in cases
                for name in self._names(case)
                if name in ECHOES
            )
        }
        say(f"every server's answers are right; transports: {', '.join(transports)}")

    def measure(self, case: Case, turn: int) -> None:
        """Measure a case on its servers."""
        names = self._names(case)
        for name in names[:: -1 if turn % 2 else 1]:  # the other way round each time
            served = self._echoes[case.request, name] if name in ECHOES else self._servers[name]
            answer_bytes = self._answer_bytes[case.request, name]
            figures = measure(name, served, case, self._seconds, answer_bytes)
            self.results.rounds.setdefault((case, name), []).append(figures)
        of_images = self.results.forwards.setdefault(case.request.images, [])
        if len(of_images) <= turn:  # once a round
            of_images.append(forward_microseconds(self._runner, case.request))

    def _names(self, case: Case) -> list[str]:
        return [name for name in case.servers if name not in self._left_out]

    def _check(self, case: Case) -> None:
        names = self._names(case)
        for name in names:
            if name not in ECHOES and (case.request, name) not in self._answer_bytes:
                size = check(name, self._servers[name].port, case.request, self._runner)
                self._answer_bytes[case.request, name] = size
        ours = next((name for name in names if name in BOTH), None)
        for name in names:
            if name in ECHOES and ours:
                self._answer_bytes[case.request, name] = self._answer_bytes[case.request, ours]


def _start(stack: ExitStack, module: str, *arguments: str) -> Served:
    environment = {**os.environ, "ORT_DISABLE_TELEMETRY": "1"}
    return stack.enter_context(running(module, *arguments, environment=environment))


def say(text: str) -> None:
    """Tell how far it is."""
    print(text, file=sys.stderr, flush=True)
