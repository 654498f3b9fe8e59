"""A Ray cluster of three nodes on this machine: throughput, an update, a lost node.

`python -m bench ray` prints the tables. The nodes share the processors of the machine, so more
replicas do not answer more here; what is shown is what Ray adds to a call.
"""

import asyncio
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from statistics import median

from bench.load.retrying import PREDICT, Callers, Outcomes
from bench.reports.tables import table
from bench.scenarios.speed import say
from bench.servers.ray import (
    RayCluster,
    RayServer,
    free_ports,
    ray_cluster,
    ray_server,
)
from bench.servers.ray_echo import METHOD as ECHO
from export.bundle import open_bundle
from export.bundle.publishing import write_bundle

NODES, CPUS = 3, 4.0
REPLICAS = (1, 2, 4)
CALLERS = (1, 32)
MODELS = Path(__file__).parents[2] / "models"


def ray(seconds: float) -> str:
    """Measure; return the tables, in Markdown."""
    with tempfile.TemporaryDirectory() as folder, ray_cluster(NODES, CPUS) as cluster:
        options = ("--models-dir", str(_two_versions(Path(folder))), "--ray-discovery-port", "0")
        rows = list(_echo_rows(cluster, seconds))
        with ray_server(cluster.environment, cluster.address, (*options, *_version(1))) as server:
            deployed = _Deployed(cluster, server, options)
            for replicas in REPLICAS:
                if replicas > 1:  # else it is what it began with
                    deployed.update(replicas, 1)
                for callers in CALLERS:
                    name = f"Forward, {replicas} replica{'s' if replicas > 1 else ''}"
                    rows.append(_row(name, callers, _load(server.port, callers, seconds)))
            count = REPLICAS[-1]
            changes = [
                _change(f"update of {count} replicas", deployed, lambda: deployed.update(count, 2)),
                _change("killed node", deployed, cluster.kill_node),
                _change("killed node, no retries", deployed, cluster.kill_node),
            ]
    head = ("what", "callers", "requests a second", "p50, ms", "p99, ms", "failed")
    change_head = (
        *("change, under 32 callers", "seconds", "answered", "by version 1, 2", "failed"),
        *("failures over, s", "longest call, s", "longest silence, s"),
    )
    return f"{table(head, rows)}\n\n{table(change_head, changes)}"


def _two_versions(folder: Path) -> Path:
    bundle = open_bundle(shutil.copytree(MODELS / "mnist" / "1", folder / "mnist" / "1"))
    second = folder / "mnist" / "2"
    second.mkdir()
    files = {file.name: bundle.read(file.name) for file in bundle.manifest.files}
    write_bundle(second, bundle.manifest.model_copy(update={"version": 2}), files)
    return folder


def _version(number: int) -> tuple[str, str]:
    return ("--model-version", str(number))


class _Deployed:
    """The application, and what changes it."""

    def __init__(self, cluster: RayCluster, server: RayServer, options: tuple[str, ...]) -> None:
        self.cluster, self.server, self._options = cluster, server, options

    def update(self, replicas: int, version: int) -> None:
        """Deploy so many replicas of a version; return when they serve.

        Raises:
            RuntimeError: they do not.
        """
        ports = ("--grpc-port", str(self.server.port), "--http-port", str(self.server.http_port))
        counted = ("--ray-min-replicas", str(replicas), "--ray-detach")
        done = self.cluster.run(*self._options, *ports, *counted, *_version(version))
        if done.returncode:
            raise RuntimeError(f"the update failed: {done.stderr[-2000:]}")


def _echo_rows(cluster: RayCluster, seconds: float) -> Iterator[tuple[str, ...]]:
    with _echo(cluster) as port:
        for callers in CALLERS:
            outcomes = _load(port, callers, seconds, ECHO)
            yield _row("Ray's plain gRPC echo, 1 replica", callers, outcomes)


@contextmanager
def _echo(cluster: RayCluster) -> Iterator[int]:
    port, http_port = free_ports(2)
    command = [sys.executable, "-m", "bench.servers.ray_echo", cluster.address]
    process = subprocess.Popen(
        [*command, str(port), str(http_port)],
        env=cluster.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        for line in process.stdout or ():
            if line.strip() == "ready":
                break
        yield port
        process.communicate()


def _load(port: int, callers: int, seconds: float, method: str = PREDICT) -> Outcomes:
    say(f"{callers} callers of {method}")
    asyncio.run(Callers(port, callers, retries=False, method=method).run_for(1))  # warm up
    return asyncio.run(Callers(port, callers, retries=False, method=method).run_for(seconds))


def _row(name: str, callers: int, outcomes: Outcomes) -> tuple[str, ...]:
    times = sorted(outcomes.seconds)
    rate = outcomes.answered / (outcomes.answered_at[-1] - outcomes.answered_at[0])
    p99 = times[int(0.99 * len(times))]
    failed = f"{sum(outcomes.failed.values())}"
    return (name, f"{callers}", f"{rate:,.0f}", _ms(median(times)), _ms(p99), failed)


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.1f}"


def _change(name: str, deployed: _Deployed, change: Callable[[], object]) -> tuple[str, ...]:
    """Return the row of a change under load, and what failed meanwhile."""
    say(name)

    async def run() -> tuple[Outcomes, float]:
        retries = "no retries" not in name
        callers = Callers(deployed.server.port, max(CALLERS), retries=retries)
        running = asyncio.create_task(callers.run())
        await asyncio.sleep(2)
        took = await _timed(lambda: asyncio.to_thread(change))
        await asyncio.sleep(12 if "node" in name else 3)
        callers.end()
        await running
        return callers.outcomes, took

    outcomes, took = asyncio.run(run())
    versions = f"{outcomes.versions[1]:,}, {outcomes.versions[2]:,}"
    failed = ", ".join(f"{count} {status}" for status, count in outcomes.failed.items()) or "0"
    over = outcomes.failed_at[-1] - outcomes.failed_at[0] if outcomes.failed_at else 0.0
    at = sorted(outcomes.answered_at)
    silence = max(later - earlier for earlier, later in pairwise(at))
    figures = (f"{over:.2f}", f"{max(outcomes.seconds):.2f}", f"{silence:.2f}")
    return (name, f"{took:.1f}", f"{outcomes.answered:,}", versions, failed, *figures)


async def _timed(run: Callable[[], Awaitable[object]]) -> float:
    started = time.monotonic()
    await run()
    return time.monotonic() - started
