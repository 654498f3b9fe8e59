"""Ray clusters on this machine with what is deployed to them; none leaves a process behind."""

import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import psutil

START_SECONDS = 240
STOP_SECONDS = 60
# Every process of a cluster has it in its environment, so that those that stay are found.
MARK = "RAY_CLUSTER_MARK"
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "disabled",  # else Ray would write a token into the home folder
    "RAY_DEDUP_LOGS": "0",
    # A machine with much else to do is slower than Ray expects: it would start proxies again.
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
    "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "60",
    # Workers that nobody has asked for yet, one for each processor.
    "RAY_prestart_worker_first_driver": "0",
    "RAY_enable_worker_prestart": "0",
    "CUDA_VISIBLE_DEVICES": "",
}


@dataclass
class RayCluster:
    """A cluster whose nodes are processes of this machine."""

    process: subprocess.Popen[str]
    address: str
    environment: dict[str, str]

    def kill_node(self) -> None:
        """Kill the newest node that is not the head: all of its processes, at once."""
        assert self.process.stdin  # noqa: S101 (a pipe)
        assert self.process.stdout  # noqa: S101 (a pipe)
        self.process.stdin.write("kill\n")
        self.process.stdin.flush()
        self.process.stdout.readline()

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run `python -m deploy.ray serve` for the cluster until it ends."""
        return subprocess.run(
            [*serve_command(), "--ray-address", self.address, *arguments],
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            timeout=START_SECONDS,
            check=False,
        )


def serve_command() -> list[str]:
    """Return the command, in JSON lines."""
    return [sys.executable, "-m", "deploy.ray", "serve", "--log-format", "json"]


@contextmanager
def ray_cluster(nodes: int, cpus: float, **environment: str) -> Iterator[RayCluster]:
    """Run a cluster; end it and whatever is left of it."""
    mark = uuid.uuid4().hex
    marked = {**os.environ, **QUIET, **environment, MARK: mark}
    command = [sys.executable, "-m", "bench.servers.ray_cluster", str(nodes), str(cpus)]
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            command,
            env=marked,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        try:
            assert process.stdout  # noqa: S101 (a pipe)
            address = process.stdout.readline().strip()
            if not address:
                log.seek(0)
                raise RuntimeError(f"no Ray cluster: {log.read()}")
            yield RayCluster(process, address, marked)
        finally:
            with process:  # closes its input
                _close(process.stdin)
                _wait(process)
            end_marked(mark)


def _close(stdin: IO[str] | None) -> None:
    if stdin:
        stdin.close()


def _wait(process: subprocess.Popen[str]) -> None:
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()


def marked_processes(mark: str) -> list[psutil.Process]:
    """Return the processes of a cluster that run, but for this one."""
    found = []
    for each in psutil.process_iter():
        try:
            is_one = each.pid != os.getpid() and each.environ().get(MARK) == mark
            if is_one and each.status() != psutil.STATUS_ZOMBIE:
                found.append(each)
        except psutil.Error:
            continue
    return found


def end_marked(mark: str) -> None:
    """Kill what is left of a cluster, once Ray has had a moment to end it."""
    deadline = time.monotonic() + 10
    while (left := marked_processes(mark)) and time.monotonic() < deadline:
        time.sleep(0.1)
    for each in left:
        each.kill()


@dataclass
class RayServer:
    """The command `python -m deploy.ray serve`, which said that it is ready."""

    process: subprocess.Popen[str]
    log_path: Path
    ready: dict[str, Any] = field(default_factory=dict)

    @property
    def port(self) -> int:
        """Return the port of gRPC."""
        return int(self.ready["grpc_port"])

    @property
    def http_port(self) -> int:
        """Return the port of HTTP."""
        return int(self.ready["http_port"])

    @property
    def address(self) -> str:
        """Return where gRPC listens."""
        return f"127.0.0.1:{self.port}"

    @property
    def http_address(self) -> str:
        """Return where HTTP listens."""
        return f"127.0.0.1:{self.http_port}"

    def stop(self) -> int:
        """End it by SIGTERM; return its exit status."""
        self.process.terminate()
        return self.process.wait(STOP_SECONDS)


def free_ports(count: int) -> list[int]:
    """Return ports that are free now: Ray's proxies take the same on every node, not 0."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


@contextmanager
def ray_server(
    environment: dict[str, str], address: str, arguments: Sequence[str]
) -> Iterator[RayServer]:
    """Run the command in the foreground until it is ready; end it at the end."""
    grpc_port, http_port = free_ports(2)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log"
        ports = ("--grpc-port", str(grpc_port), "--http-port", str(http_port))
        command = [*serve_command(), "--ray-address", address, *ports, *arguments]
        with path.open("wb") as log:
            process = subprocess.Popen(command, env=environment, stderr=log, stdout=log, text=True)
        server = RayServer(process, path)
        killer = threading.Timer(START_SECONDS, process.kill)
        killer.start()
        try:
            while not server.ready:
                if process.poll() is not None:
                    raise RuntimeError(f"it did not start: {path.read_text()}")
                server.ready = _ready(path)
                time.sleep(0.1)
            killer.cancel()
            yield server
        finally:
            killer.cancel()
            if process.poll() is None:
                process.terminate()
                _wait(process)


def _ready(path: Path) -> dict[str, Any]:
    for line in path.read_text().splitlines():
        if line.startswith("{") and '"event": "ready"' in line:
            found: dict[str, Any] = json.loads(line)
            return found
    return {}
