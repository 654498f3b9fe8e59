"""Clients that mean harm, and what one beside them notices: `python -m bench floods`."""

import itertools
import resource
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial

import numpy as np

from bench.load.counters import read_counters
from bench.load.floods import FLOODS, goaway_of, opened_connection, send_flood, unread_traces
from bench.load.open_loop import OpenLoopClient, Outcome
from bench.load.processes import Served, running
from bench.reports.tables import number, table
from bench.scenarios.speed import say
from bench.servers.forward import Transport, forward

RATE = 100  # requests a second of the client beside it, each of one image
LEAD_SECONDS = 1.0  # of it, before and after
CONNECTIONS = 10_000
MOST = 50_000  # frames of one connection
QUIET_SECONDS = 3.0  # until the server is idle again, and looked at


@dataclass(frozen=True)
class Harm:
    """What was seen of one kind of harm."""

    kind: str
    done: int  # frames, calls or connections
    ends: str  # what its connections ended with
    seconds: float
    outcomes: Sequence[Outcome]  # of the client beside it
    peak_mebibytes: float  # over what the server held before
    left_mebibytes: float  # afterwards
    idle_share: float  # of a core, afterwards

    def row(self) -> Sequence[str]:
        """Return what a table says of it."""
        times = [each.milliseconds for each in self.outcomes if each.status == "OK"]
        failed = sum(each.status != "OK" for each in self.outcomes)
        p50, p99 = np.percentile(times, (50, 99)) if times else (np.inf, np.inf)
        return (
            *(self.kind, self.ends, number(self.done / self.seconds)),
            *(number(p50), number(p99), str(failed)),
            *(number(self.peak_mebibytes), number(self.left_mebibytes), f"{self.idle_share:.2f}"),
        )


def floods(transport: Transport, seconds: float) -> str:
    """Return the table of every kind of harm, each for so many seconds.

    Raises:
        RuntimeError: the client beside one of them lost a call.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, CONNECTIONS + 1000), hard))
    harms: dict[str, Callable[[int, float], tuple[int, str]]] = {"nothing": _nothing}
    harms |= {name: partial(_flood, frames) for name, frames in FLOODS.items()}
    harms |= {"connections left open": _leave_open, "Traces never read": _never_read}
    seen = []
    with running(*forward(transport)) as served:
        for name, harm in harms.items():
            seen.append(_measure(served, name.replace("_", " "), harm, seconds))
            say(f"{transport}: {' '.join(seen[-1].row())}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    headings = ("harm", "its connections end with", "done/s", "p50 ms", "p99 ms", "failed")
    memory = ("peak, MiB more", "left, MiB more", "cores after")
    text = table((*headings, *memory), [each.row() for each in seen], left=2)
    if any(outcome.status != "OK" for each in seen for outcome in each.outcomes):
        raise RuntimeError(f"a client beside it lost calls:\n{text}")
    return (
        f"Each for {seconds:g} s; beside it a client of grpcio that sends {RATE} images a second, "
        "in turn, on a connection of its own.\n\n" + text
    )


def _measure(
    served: Served, kind: str, harm: Callable[[int, float], tuple[int, str]], seconds: float
) -> Harm:
    before = served.resident_mebibytes()
    answered = _answered(served)
    beside = OpenLoopClient(served.port, 1, RATE, seconds + LEAD_SECONDS)
    while _answered(served) == answered:  # it has its connection before there is harm
        time.sleep(0.05)
    began = time.monotonic()
    done, ends = harm(served.port, seconds)
    took = time.monotonic() - began
    peak = served.resident_mebibytes() - before
    outcomes = beside.outcomes()
    time.sleep(QUIET_SECONDS)
    used = served.cpu_seconds()
    time.sleep(1)
    used = served.cpu_seconds() - used
    left = served.resident_mebibytes() - before
    return Harm(kind, done, ends, took, outcomes, peak, left, used)


def _answered(served: Served) -> int:
    return read_counters(served.metrics_port or 0).calls("OK")


def _nothing(_port: int, seconds: float) -> tuple[int, str]:
    time.sleep(seconds)
    return 0, ""


def _flood(frames: Callable[[], Iterator[bytes]], port: int, seconds: float) -> tuple[int, str]:
    """Send a flood on one connection after the other."""
    ends: Counter[str] = Counter()
    until, done = time.monotonic() + seconds, 0
    while time.monotonic() < until:
        try:
            sent, received = send_flood(port, frames(), MOST)
        except TimeoutError:
            ends["nothing"] += 1
            continue
        done += sent
        away = goaway_of(received)
        ends["no GOAWAY" if away is None else away[1].decode() or f"error {away[0]}"] += 1
    return done, ", ".join(f"{text} ({count})" for text, count in ends.most_common())


def _leave_open(port: int, seconds: float) -> tuple[int, str]:
    """Open connections as fast as they are taken, and say nothing on any."""
    until, ends = time.monotonic() + seconds, Counter[str]()
    with ExitStack() as stack:
        count = 0
        for count in itertools.count(1):
            held = socket.create_connection(("127.0.0.1", port), timeout=20)
            stack.enter_context(held)
            if count >= CONNECTIONS or time.monotonic() > until:
                break
    ends["nothing"] += count
    return count, ", ".join(ends)


def _never_read(port: int, seconds: float) -> tuple[int, str]:
    """Ask for large responses, and read none."""
    with opened_connection(port, window=0) as slow:
        slow.settimeout(seconds)
        done = 0
        with suppress(OSError):
            for frames in unread_traces():
                slow.sendall(frames)
                done += 1
        time.sleep(seconds)
    return done, "nothing"
