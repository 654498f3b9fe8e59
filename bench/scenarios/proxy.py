"""Replicas behind HAProxy: rolling restarts under load, and what the proxy costs."""

import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass

from bench.load.h2load import Load, Shape, frame, load
from bench.load.mixed import CALLERS, CONNECTIONS, STREAM_MESSAGES, MixedLoad, Outcome
from bench.load.requests import Request
from bench.reports.tables import number, table
from bench.scenarios.speed import say
from bench.servers.forward import Transport
from bench.servers.proxied import HOST, Proxied, proxied

DRAIN_DELAY_SECONDS = 2
BESIDE_SECONDS = 1.0  # of load before and after the restarts
STUCK_SECONDS = 300
ONE = Request("Predict", 1)
SHAPES = (Shape(64, 8), Shape(1, 1))


@dataclass(frozen=True)
class Round:
    """Every replica restarted once, and what the callers saw."""

    outcome: Outcome
    seconds: float
    status: int

    @property
    def holds(self) -> bool:
        """Tell if no call failed, and the script said that it ended well."""
        called = {request.method for request in CALLERS}
        return self.status == 0 and not self.outcome.failed and called <= set(self.outcome.answered)


def proxy(transport: Transport, rounds: int, seconds: float) -> str:
    """Return the tables of rolling restarts and of the proxy's cost.

    Raises:
        RuntimeError: a call failed, or a replica did not come back.
    """
    arguments = (
        *("--transport", transport, "--device", "cpu", "--log-format", "json"),
        *("--drain-delay", str(DRAIN_DELAY_SECONDS)),
    )
    with proxied(*arguments) as served:
        costs = [_cost(served, shape, seconds) for shape in SHAPES]
        seen = [rolling_restart(served) for _ in range(rounds)]
        exits = [status for replica in served.replicas for status in replica.exits]
    text = f"{_restarts(seen, exits)}\n\n{_costs(costs)}"
    if not all(each.holds for each in seen) or any(exits):
        raise RuntimeError(f"calls failed, or a replica ended badly:\n{text}")
    return text


def rolling_restart(served: Proxied) -> Round:
    """Restart every replica once under load."""
    with MixedLoad(served.address) as calls:
        time.sleep(BESIDE_SECONDS)
        began = time.monotonic()
        command = served.restart_command()
        status = subprocess.run(command, timeout=STUCK_SECONDS, check=False).returncode
        seconds = time.monotonic() - began
        time.sleep(BESIDE_SECONDS)
    say(f"{seconds:.1f} s: {calls.outcome}")
    return Round(calls.outcome, seconds, status)


@dataclass(frozen=True)
class Cost:
    """The same load directly on one replica, and on the proxy; CPU in microseconds a request."""

    callers: int
    direct: Load
    direct_cpu: float
    through: Load
    server_cpu: float
    proxy_cpu: float


def _cost(served: Proxied, shape: Shape, seconds: float) -> Cost:
    first = served.replicas[0]
    used = _cpu(served)
    direct = _load(first.ports["grpc"], shape, seconds)
    between = _cpu(served)
    through = _load(served.ports["grpc"], shape, seconds)
    after = _cpu(served)
    return Cost(
        shape.callers,
        direct,
        1e6 * (between[0] - used[0]) / direct.requests,
        through,
        1e6 * (after[0] - between[0]) / through.requests,
        1e6 * (after[1] - between[1]) / through.requests,
    )


def _load(port: int, shape: Shape, seconds: float) -> Load:
    url, body = f"http://{HOST}:{port}{ONE.path}", frame(ONE.message())
    result = load(url, body, shape, seconds=seconds)
    if result.failed or not result.data_bytes:  # an error of gRPC has no data
        raise RuntimeError(f"requests failed on port {port}: {result}")
    return result


def _cpu(served: Proxied) -> tuple[float, float]:
    """Return the CPU seconds of the replicas and of HAProxy since their start."""
    processes = [each.process for each in served.replicas if each.process]
    times = [process.cpu_times() for process in (*processes, served.haproxy)]
    used = [each.user + each.system for each in times]
    return sum(used[:-1]), used[-1]


def _restarts(seen: Sequence[Round], exits: Sequence[int]) -> str:
    methods = sorted({request.method for request in CALLERS})
    rows = [
        (
            str(place),
            *(f"{each.outcome.answered[method]:,}" for method in methods),
            "; ".join(f"{count} {what}" for what, count in each.outcome.failed.items()) or "0",
            number(each.seconds),
        )
        for place, each in enumerate(seen, 1)
    ]
    headings = ("round", *(f"{method}, OK" for method in methods), "failed, limit 0", "s")
    return (
        "3 replicas, all restarted by `rolling_restart.py` once in each round, under "
        f"{len(CALLERS)} callers over {CONNECTIONS} connections. Every answer is compared with one "
        f"from before; a stream is {STREAM_MESSAGES} messages. {len(exits)} processes were ended, "
        f"{sum(status == 0 for status in exits)} of them with exit status 0.\n\n"
        + table(headings, rows, left=0)
    )


def _costs(costs: Sequence[Cost]) -> str:
    rows = [
        (
            str(each.callers),
            *(f"{run.requests / run.seconds:,.0f}" for run in (each.direct, each.through)),
            *(number(run.p50) for run in (each.direct, each.through)),
            *(number(run.p99) for run in (each.direct, each.through)),
            *(number(cpu) for cpu in (each.direct_cpu, each.server_cpu, each.proxy_cpu)),
        )
        for each in costs
    ]
    version = subprocess.run(["haproxy", "-v"], capture_output=True, text=True, check=True).stdout
    headings = (
        "callers",
        *("a second: direct", "a second: proxy"),
        *("p50, ms: direct", "p50, ms: proxy"),
        *("p99, ms: direct", "p99, ms: proxy"),
        *("CPU of the server, µs: direct", "CPU of the servers, µs: proxy", "CPU of HAProxy, µs"),
    )
    return (
        f"What the proxy costs: {ONE.title}, directly to one replica, and through HAProxy "
        f"{version.split()[2]} to all; replicas, proxy and client share the cores.\n\n"
        + table(headings, rows, left=0)
    )
