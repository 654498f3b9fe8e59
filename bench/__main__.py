"""Measure the server beside what limits it: `python -m bench`.

Without a command: the speed of every kind of request, beside a bare echo, the
server of gRPC's tutorial and one without batching.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from bench.reports.speed import report
from bench.reports.tables import RESULTS, keep
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
from bench.scenarios.measure import FailedRequestsError
from bench.scenarios.overload import overload
from bench.scenarios.reload import report as reload_report
from bench.scenarios.soak import soak
from bench.scenarios.speed import run


def main() -> int:
    """Print the tables, and keep those of a full run."""
    options = _options()
    try:
        heading, text = _measure(options)
    except (FailedRequestsError, WrongAnswerError, RuntimeError) as error:
        print(f"python -m bench: {error}", file=sys.stderr)
        return 1
    except subprocess.TimeoutExpired as error:
        print(f"python -m bench: a server hangs under load: {error}", file=sys.stderr)
        return 1
    print(text)
    path: Path | None = options.results
    if path is None and not (options.quick or options.only):
        path = RESULTS
    if path is not None:
        keep(heading, text, path)
        print(f"\nkept in {path}", file=sys.stderr)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    # Also after a command, where it must not put its own default in the place of what was given.
    shared = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    for each in (parser, shared):
        each.add_argument("--quick", action="store_true", help="short, and kept nowhere")
        each.add_argument("--results", type=Path, help=f"file to keep it in ({RESULTS})")
    parser.add_argument("--rounds", type=int, default=3, help="rounds (%(default)s)")
    parser.add_argument("--seconds", type=int, default=2, help="of each figure (%(default)s)")
    parser.add_argument("--only", help="cases whose name has this in it, and what they refer to")
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
    for command in (again, ends):
        command.add_argument("--close-log", action="store_true", help="once the server is ready")
    return parser.parse_args()


def _measure(options: argparse.Namespace) -> tuple[str, str]:
    if options.command == "overload":
        return "Overload", overload(5 if options.quick else options.seconds, options.images)
    if options.command == "soak":
        return "Soak", soak(0.5 if options.quick else options.minutes)
    if options.command == "reload":
        return "Reload", reload_report(
            5 if options.quick else options.reloads, closes_log=options.close_log
        )
    if options.command == "drain":
        return "Drain", drains(2 if options.quick else options.drains, closes_log=options.close_log)
    rounds, seconds = (1, 1) if options.quick else (options.rounds, options.seconds)
    cases = _chosen(options.only)
    return "Speed", report(run(cases, rounds, seconds), cases, rounds, seconds)


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
