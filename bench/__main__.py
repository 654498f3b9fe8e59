"""Measure the server beside what limits it: `python -m bench`.

Without a command: the speed of every kind of request by each transport, beside a bare
echo, the server of gRPC's tutorial and one without batching.
"""

import argparse
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from bench.reports.speed import report
from bench.reports.tables import RESULTS, keep
from bench.reports.transports import GOALS
from bench.scenarios.cases import (
    ATTRIBUTIONS,
    CASES,
    CONCURRENT,
    INFERS,
    INTERVENTIONS,
    SINGLE,
    Case,
)
from bench.scenarios.check import WrongAnswerError
from bench.scenarios.drain import drains
from bench.scenarios.floods import floods
from bench.scenarios.measure import FailedRequestsError
from bench.scenarios.observability import observability
from bench.scenarios.overload import overload
from bench.scenarios.proxy import proxy
from bench.scenarios.reload import report as reload_report
from bench.scenarios.scoring import scoring
from bench.scenarios.soak import soak
from bench.scenarios.speed import run, say
from bench.servers.forward import CHOICES, Transport, chosen


def main() -> int:
    """Print the tables, and keep those of a full run."""
    options = _options()
    try:
        for heading, measure in _sections(options):
            _report(heading, measure(), options)
    except (FailedRequestsError, WrongAnswerError, RuntimeError) as error:
        print(f"python -m bench: {error}", file=sys.stderr)
        return 1
    except subprocess.TimeoutExpired as error:
        print(f"python -m bench: a server hangs under load: {error}", file=sys.stderr)
        return 1
    return 0


def _report(heading: str, text: str, options: argparse.Namespace) -> None:
    print(f"## {heading}\n\n{text}\n", flush=True)
    path: Path | None = options.results
    if path is None and not (options.quick or options.only or options.goals):
        path = RESULTS
    if path is not None:
        keep(heading, text, path)
        print(f"kept in {path}", file=sys.stderr)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    # Also after a command, where it must not put its own default in the place of what was given.
    shared = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    for each in (parser, shared):
        each.add_argument("--quick", action="store_true", help="short, and kept nowhere")
        each.add_argument(
            "--transport",
            choices=CHOICES,
            help="what carries gRPC (without a command both, with one auto: native if installed)",
        )
        each.add_argument("--results", type=Path, help=f"file to keep it in ({RESULTS})")
    parser.add_argument("--rounds", type=int, default=3, help="rounds (%(default)s)")
    parser.add_argument("--seconds", type=float, default=1.2, help="of each figure (%(default)s)")
    parser.add_argument("--only", help="cases whose name has this in it, and what they refer to")
    parser.add_argument("--goals", action="store_true", help="only what a transport has a goal for")
    commands = parser.add_subparsers(dest="command")
    overloaded = commands.add_parser("overload", parents=[shared], help="at twice the capacity")
    overloaded.add_argument("--seconds", type=int, default=60, help="of overload (%(default)s)")
    overloaded.add_argument("--images", type=int, default=1024, help="of a request (%(default)s)")
    steady = commands.add_parser("soak", parents=[shared], help="mixed load for long")
    steady.add_argument("--minutes", type=float, default=10, help="of load (%(default)s)")
    again = commands.add_parser("reload", parents=[shared], help="versions, one after the other")
    again.add_argument("--reloads", type=int, default=100, help="of them (%(default)s)")
    ends = commands.add_parser("drain", parents=[shared], help="ends by SIGTERM under load")
    ends.add_argument("--drains", type=int, default=20, help="servers (%(default)s)")
    harmful = commands.add_parser("floods", parents=[shared], help="clients that mean harm")
    harmful.add_argument("--seconds", type=float, default=5, help="of each kind (%(default)s)")
    watched = commands.add_parser("observability", parents=[shared], help="what observing costs")
    watched.add_argument("--rounds", type=int, default=5, help="rounds (%(default)s)")
    watched.add_argument("--seconds", type=float, default=1.5, help="of each figure (%(default)s)")
    watched.add_argument("--before", type=Path, help="a checkout with an environment, beside it")
    several = commands.add_parser("proxy", parents=[shared], help="replicas behind HAProxy")
    several.add_argument("--rounds", type=int, default=3, help="of restarts (%(default)s)")
    several.add_argument("--seconds", type=float, default=3, help="of each cost (%(default)s)")
    many = commands.add_parser("scoring", parents=[shared], help="batch scoring, killed midway")
    many.add_argument("--images", type=int, default=1_000_000, help="in all (%(default)s)")
    cluster = commands.add_parser("ray", parents=[shared], help="a Ray cluster of three nodes")
    cluster.add_argument("--seconds", type=float, default=8, help="of each figure (%(default)s)")
    for command in (again, ends):
        command.add_argument("--close-log", action="store_true", help="once the server is ready")
    return parser.parse_args()


def _sections(options: argparse.Namespace) -> Iterator[tuple[str, Callable[[], str]]]:
    """Yield the headings of what is to be measured, and what measures it."""
    transports = chosen(options.transport or ("auto" if options.command else "both"))
    if options.command is None:
        yield "Speed", partial(_speed, options, transports)
        return
    if options.command == "scoring":
        images = 100_000 if options.quick else options.images
        yield "Batch scoring", partial(scoring, transports[0], images)
        return
    if options.command == "ray":
        yield "Ray, three nodes on one machine", partial(_ray, options)
        return
    for transport in transports:
        say(f"{options.command}: gRPC is carried by the {transport} transport")
        heading = f"{options.command.capitalize()}, {transport} transport"
        yield heading, partial(_long, options, transport)


def _speed(options: argparse.Namespace, transports: Sequence[Transport]) -> str:
    rounds, seconds = (1, 1.0) if options.quick else (options.rounds, options.seconds)
    cases = _chosen(options.only)
    if options.goals:
        goals = {goal.case for goal in GOALS}
        cases = [case for case in cases if case in goals]
    results = run(cases, transports, rounds, seconds, rests=options.only is None)
    return report(results, cases, transports, rounds, seconds)


def _long(options: argparse.Namespace, transport: Transport) -> str:
    quick = options.quick
    if options.command == "overload":
        return overload(transport, 5 if quick else options.seconds, options.images)
    if options.command == "soak":
        return soak(transport, 0.5 if quick else options.minutes)
    if options.command == "reload":
        reloads = 5 if quick else options.reloads
        return reload_report(transport, reloads, closes_log=options.close_log)
    if options.command == "floods":
        return floods(transport, 0.5 if quick else options.seconds)
    if options.command == "drain":
        return drains(transport, 2 if quick else options.drains, closes_log=options.close_log)
    return _rounds(options, transport)


def _rounds(options: argparse.Namespace, transport: Transport) -> str:
    if options.command == "proxy":
        rounds, seconds = (1, 1.0) if options.quick else (options.rounds, options.seconds)
        return proxy(transport, rounds, seconds)
    rounds, seconds = (1, 0.5) if options.quick else (options.rounds, options.seconds)
    return observability(transport, rounds, seconds, options.before)


def _ray(options: argparse.Namespace) -> str:
    from bench.scenarios.ray import ray  # noqa: PLC0415 (an extra, and it takes long)

    return ray(1.0 if options.quick else options.seconds)


def _chosen(name: str | None) -> list[Case]:
    """Return the cases of that name, with those that the limits put others beside."""
    if name is None:
        return list(CASES)
    chosen = [case for case in CASES if name.lower() in case.name.lower()]
    if not chosen:
        names = "\n  ".join(case.name for case in CASES)
        raise RuntimeError(f"no case has {name!r} in its name; there are\n  {names}")
    pairs = (*INFERS, *INTERVENTIONS, *ATTRIBUTIONS)
    beside = {other for case, other in pairs if case in chosen}
    if any(case.request.method != "Predict" for case in chosen):
        beside |= {SINGLE, CONCURRENT}
    return [case for case in CASES if case in chosen or case in beside]


if __name__ == "__main__":
    sys.exit(main())
