"""What metrics, drift, the access log and tracing cost: `python -m bench observability`."""

import os
import statistics
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from bench.load.processes import Served, running
from bench.reports.tables import Limit, limits_table, number, table
from bench.scenarios.cases import CONCURRENT, EIGHT, OURS, SINGLE
from bench.scenarios.check import check
from bench.scenarios.measure import measure
from bench.scenarios.speed import open_model, say
from bench.servers.forward import Transport, forward

CASES = (SINGLE, EIGHT, CONCURRENT)
# The flags and variables of each server; what the first takes is what the others are compared with.
LEAST, DEFAULTS, ALL_LOGGED = "no drift", "defaults", "access log of all"
NOBODY = "http://127.0.0.1:9"  # receives no spans: those that are sampled are made, and lost
SERVERS: Mapping[str, tuple[Sequence[str], Mapping[str, str]]] = {
    LEAST: (("--drift-window", "0"), {}),
    DEFAULTS: ((), {}),
    "access log of 1%": (("--access-log", "0.01"), {}),
    ALL_LOGGED: (("--access-log", "1"), {}),
    "tracing of 1%": (
        (),
        {
            "OTEL_EXPORTER_OTLP_ENDPOINT": NOBODY,
            "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
            "OTEL_TRACES_SAMPLER_ARG": "0.01",
        },
    ),
}
BEFORE = "before"
MAX_DRIFT, MAX_ALL = 1.02, 1.03  # times the CPU without


def observability(transport: Transport, rounds: int, seconds: float, before: Path | None) -> str:
    """Return the tables of what each kind of observation costs a request.

    Args:
        transport: what carries gRPC.
        rounds: the servers of a case in turn, every second time the other way round.
        seconds: of each figure.
        before: a checkout of an earlier release with its own environment, measured as well.

    Raises:
        FailedRequestsError: a server answered with errors.
    """
    with ExitStack() as stack:
        servers = {
            name: _start(stack, transport, flags, variables)
            for name, (flags, variables) in SERVERS.items()
        }
        if before is not None:
            servers = {BEFORE: _start(stack, transport, (), {}, before), **servers}
        runner = open_model()
        sizes = {
            name: check(OURS[transport], served.port, SINGLE.request, runner)
            for name, served in servers.items()
        }
        found: dict[tuple[str, str], list[float]] = {}
        for turn in range(rounds):
            for case in CASES:
                names = list(servers)[:: -1 if turn % 2 else 1]
                for name in names:
                    figures = measure(name, servers[name], case, seconds, sizes[name])
                    found.setdefault((case.callers, name), []).append(figures.cpu)
            say(f"round {turn + 1} of {rounds}")
    return _report(found, list(servers), rounds, seconds)


def _start(
    stack: ExitStack,
    transport: Transport,
    flags: Sequence[str],
    variables: Mapping[str, str],
    folder: Path | None = None,
) -> Served:
    module, *arguments = forward(transport)
    environment = {**os.environ, **variables}
    if folder is None:
        started = running(module, *arguments, *flags, environment=environment)
    else:
        python = str(folder.absolute() / ".venv/bin/python")
        started = running(
            module, *arguments, *flags, python=python, environment=environment, folder=folder
        )
    return stack.enter_context(started)


def _report(
    found: Mapping[tuple[str, str], Sequence[float]],
    names: Sequence[str],
    rounds: int,
    seconds: float,
) -> str:
    def ratio(callers: str, name: str, other: str) -> float:
        pairs = zip(found[callers, name], found[callers, other], strict=True)
        return statistics.median(a / b for a, b in pairs)

    def median(callers: str, name: str) -> float:
        return statistics.median(found[callers, name])

    first = names[0]
    rows = [
        (
            f"{case.name}: {name}",
            number(median(case.callers, name)),
            f"{number(min(found[case.callers, name]))} to {number(max(found[case.callers, name]))}",
            f"{ratio(case.callers, name, first):.3f}",
        )
        for case in CASES
        for name in names
    ]
    limits = []
    for case in CASES:
        base = median(case.callers, LEAST)
        cost = base * ratio(case.callers, DEFAULTS, LEAST)
        limits.append(Limit(f"drift, {case.name}", cost, LEAST, base, MAX_DRIFT))
        if first == BEFORE:
            base = median(case.callers, BEFORE)
            for name in (DEFAULTS, "access log of 1%"):
                cost = base * ratio(case.callers, name, BEFORE)
                limits.append(Limit(f"{name}, {case.name}", cost, BEFORE, base, MAX_ALL))
    intro = (
        f"CPU of the server for a request, in µs; median of {rounds} rounds of {number(seconds)} s "
        f"each, the servers in turn. Ratios are medians of the rounds' ratios to `{first}`. "
        "`defaults` has all metrics, drift, and request ids; `tracing of 1%` has no receiver."
    )
    return "\n\n".join(
        (
            intro,
            "### Limits of observation",
            limits_table(limits).strip(),
            "### Costs of observation",
            table(("server", "median", "minimum to maximum", "ratio"), rows),
        )
    )
