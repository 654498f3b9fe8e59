"""Replicas of Forward behind HAProxy, as deploy/proxy has it: each starts again when it ends."""

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.request import urlopen

import psutil

from bench.load.processes import STUCK_SECONDS

PROXY = Path(__file__).parents[2] / "deploy/proxy"
CONFIGURATION, RESTART = PROXY / "haproxy.cfg", PROXY / "rolling_restart.py"
COUNT = 3  # of replicas, as in haproxy.cfg
PORT_NAMES = ("grpc", "http", "metrics")
LOWEST_PORT = 10_000
START_SECONDS = 120
HOST = "127.0.0.1"


@dataclass
class Replica:
    """A server that is started again whenever it ends, as a service manager does."""

    name: str
    ports: dict[str, int]  # of grpc, http and metrics
    arguments: Sequence[str]
    folder: Path
    exits: list[int] = field(default_factory=list)  # its statuses
    process: psutil.Popen | None = None
    _stopping: threading.Event = field(default_factory=threading.Event)

    @property
    def pid_file(self) -> Path:
        """Return the file that has the number of the process, for the command that ends it."""
        return self.folder / f"{self.name}.pid"

    def run(self) -> None:
        """Start it again and again, until it is stopped."""
        ports = [
            word for name, port in self.ports.items() for word in (f"--{name}-port", str(port))
        ]
        command = [sys.executable, "-m", "server", *ports, *self.arguments]
        with (self.folder / f"{self.name}.log").open("ab") as log:
            while not self._stopping.is_set():
                self.process = psutil.Popen(command, stderr=log)
                self.pid_file.write_text(str(self.process.pid))
                self.exits.append(self.process.wait())

    def stop(self) -> None:
        """Let it end for good."""
        self._stopping.set()
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it if it has not ended."""
        if self.process and self.process.poll() is None:
            self.process.kill()


@dataclass(frozen=True)
class Proxied:
    """HAProxy with its replicas."""

    haproxy: psutil.Popen
    replicas: Sequence[Replica]
    ports: dict[str, int]  # of grpc, http and metrics
    admin_socket: Path

    @property
    def address(self) -> str:
        """Return where gRPC is served."""
        return f"{HOST}:{self.ports['grpc']}"

    def restart_command(self, *options: str) -> list[str]:
        """Return the command that restarts one replica after the other."""
        folder = self.replicas[0].folder
        end = ["sh", "-c", f'kill -TERM "$(cat {folder}/{{replica}}.pid)"']
        script = [sys.executable, str(RESTART), "--socket", str(self.admin_socket)]
        return [*script, *options, "--", *end]

    def metrics(self) -> str:
        """Return HAProxy's metrics."""
        url = f"http://{HOST}:{self.ports['metrics']}/metrics"
        with urlopen(url, timeout=STUCK_SECONDS) as response:
            text: str = response.read().decode()
        return text


@contextmanager
def proxied(*arguments: str) -> Iterator[Proxied]:
    """Start three replicas with these flags, and HAProxy before them; end them at the end."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        replicas = [
            Replica(f"replica-{n}", _free_ports(), arguments, folder) for n in range(1, COUNT + 1)
        ]
        for replica in replicas:
            thread = threading.Thread(target=replica.run)
            thread.start()
            stack.callback(_end, replica, thread)
        for replica in replicas:
            stack.callback(replica.stop)  # before the first is waited for
        for replica in replicas:
            _wait_until_ready(replica)
        ports, admin_socket = _free_ports(), folder / "admin.sock"
        haproxy = psutil.Popen(
            ["haproxy", "-f", str(CONFIGURATION)],
            env={**os.environ, **_settings(ports, admin_socket, replicas)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        stack.callback(haproxy.wait)
        stack.callback(haproxy.kill)
        _wait_for(admin_socket)
        yield Proxied(haproxy, replicas, ports, admin_socket)


def _settings(
    ports: dict[str, int], admin_socket: Path, replicas: Sequence[Replica]
) -> dict[str, str]:
    """Return the variables of haproxy.cfg."""
    settings = {"PROXY_HOST": HOST, "PROXY_SOCKET": str(admin_socket)}
    settings |= {f"PROXY_{name.upper()}_PORT": str(port) for name, port in ports.items()}
    for n, replica in enumerate(replicas, 1):
        settings[f"REPLICA_{n}"] = HOST
        for name in ("grpc", "http"):
            settings[f"REPLICA_{n}_{name.upper()}_PORT"] = str(replica.ports[name])
    return settings


def _free_ports() -> dict[str, int]:
    """Return ports that the system gives to nobody by itself, as a replica needs its own again."""
    ports: dict[str, int] = {}
    while len(ports) < len(PORT_NAMES):
        port = random.randrange(LOWEST_PORT, _first_ephemeral())  # noqa: S311 (no secret)
        with contextlib.suppress(OSError):  # somebody listens there
            socket.create_server((HOST, port)).close()
            ports[PORT_NAMES[len(ports)]] = port
    return ports


def _first_ephemeral() -> int:
    return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])


def _end(replica: Replica, thread: threading.Thread) -> None:
    replica.stop()
    thread.join(STUCK_SECONDS)
    replica.kill()
    thread.join()


def _wait_until_ready(replica: Replica) -> None:
    deadline = time.monotonic() + START_SECONDS
    log = replica.folder / f"{replica.name}.log"
    while not (log.exists() and '"event": "ready"' in log.read_text()):
        if replica.exits or time.monotonic() > deadline:
            raise RuntimeError(f"{replica.name} is not ready: {log.read_text()}")
        time.sleep(0.05)


def _wait_for(path: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not path.exists():
        if time.monotonic() > deadline:
            raise RuntimeError("HAProxy does not start")
        time.sleep(0.05)
