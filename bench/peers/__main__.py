"""Measure Forward beside other servers of the same model: `python -m bench.peers`.

In each round every server is started in turn, checked, loaded and ended, so that
none takes time from another and all of them meet the same noise of the machine.
"""

import argparse
import signal
from collections import defaultdict
from pathlib import Path

from rich.console import Console

from bench.peers.measure import CASES, Sample, figures, round_of
from bench.peers.report import Results, markdown, show
from bench.peers.targets import FORWARD, PEERS, Target

PAGE = Path(__file__).parents[2] / "docs/performance/peers.md"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.peers", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each case (%(default)s)")
    parser.add_argument(
        "--seconds", type=float, default=4.0, help="seconds of each case in a round (%(default)s)"
    )
    parser.add_argument(
        "--only",
        action="append",
        metavar="NAME",
        help="measure the peers whose name has this in it, and Forward; print, but leave the page "
        "as it is (may be given again)",
    )
    return parser.parse_args()


def _chosen(only: list[str] | None) -> list[Target]:
    if only is None:
        return [*FORWARD, *PEERS]
    peers = [each for each in PEERS if any(name.lower() in each.name.lower() for name in only)]
    if not peers:
        names = ", ".join(each.name for each in PEERS)
        raise SystemExit(f"no peer is named {' or '.join(only)}; there are {names}")
    return [*FORWARD, *peers]


def measure(
    targets: list[Target], rounds: int, seconds: float, console: Console
) -> tuple[Results, dict[Target, str]]:
    """Return the figures of the servers that work, and why the others do not."""
    samples: defaultdict[Target, list[list[Sample]]] = defaultdict(list)
    notes: dict[Target, str] = {}
    for turn in range(rounds):
        for target in targets[:: -1 if turn % 2 else 1]:  # the other way round each time
            if target in notes:
                continue
            console.print(f"round {turn + 1} of {rounds}: {target.name}")
            try:
                samples[target].append(round_of(target, CASES, seconds))
            except RuntimeError as error:
                if target in FORWARD:
                    raise
                notes[target] = str(error)
                console.print(f"{target.name} is left out: {error}", markup=False)
    results = {
        target: {
            case: figures([each[index] for each in samples[target]])
            for index, case in enumerate(CASES)
        }
        for target in targets
        if target not in notes
    }
    return results, notes


def main() -> None:
    """Measure, print, and write the page."""
    options = _options()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the running server ends too
    targets = _chosen(options.only)
    results, notes = measure(targets, options.rounds, options.seconds, Console(stderr=True))
    show(results, notes)
    if options.only is None:
        PAGE.write_text(markdown(results, notes, options.rounds, options.seconds))


if __name__ == "__main__":
    main()
