"""Server processes under measurement: started on a free port, metered, ended by their own PID."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

STUCK_SECONDS = 40  # a server that has not ended by then hangs; it drains for 30 at most
SLOW_SECONDS = 5  # for one with nothing left to do


@dataclass(frozen=True)
class Served:
    """A server process that answers on a port of the loopback address."""

    process: psutil.Popen
    port: int
    metrics_port: int | None = None
    http_port: int | None = None
    transport: str | None = None  # of Forward: what carries gRPC

    def url(self, path: str) -> str:
        """Return the address of a path on it."""
        return f"http://127.0.0.1:{self.port}{path}"

    def cpu_seconds(self) -> float:
        """Return the user and system time that it and its children have used."""
        total = 0.0
        for each in self._family():
            times = each.cpu_times()
            total += times.user + times.system
        return total

    def resident_mebibytes(self) -> float:
        """Return the memory that it and its children hold."""
        return sum(each.memory_info().rss for each in self._family()) / 2**20

    def proportional_mebibytes(self) -> float:
        """Return the same, with only its share of what other processes have in memory too."""
        return sum(each.memory_full_info().pss for each in self._family()) / 2**20

    def _family(self) -> list[psutil.Process]:
        return [psutil.Process(self.process.pid), *self.process.children(recursive=True)]


@contextmanager
def running(
    module: str,
    *arguments: str,
    python: str = sys.executable,
    environment: Mapping[str, str] | None = None,
    closes_log: bool = False,
    folder: Path | None = None,
) -> Iterator[Served]:
    """Start a module that prints its port, or logs it as "ready"; end it at the end.

    The reader of its log may go away by then. It is started in a folder, if one is given.
    """
    command = [python, "-m", module, *arguments]
    with psutil.Popen(
        command,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        cwd=folder,
    ) as process:
        try:
            served = _ready(process, command)
            if closes_log:
                process.stdout.close()
            else:
                # Nobody reads what it says from here on; a full pipe would stop it.
                threading.Thread(target=process.stdout.read, daemon=True).start()
            yield served
        finally:
            _end(process, command)


def _end(process: psutil.Popen, command: Sequence[str]) -> None:
    """End a process by SIGTERM, and what it leaves of its children by SIGKILL."""
    asked = time.monotonic()
    children = process.children(recursive=True) if process.is_running() else []
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(STUCK_SECONDS)
    except psutil.TimeoutExpired:
        process.kill()
        raise RuntimeError(f"{' '.join(command)} did not end after SIGTERM") from None
    finally:
        for child in psutil.wait_procs(children, timeout=1)[1]:
            child.kill()
    if (seconds := time.monotonic() - asked) > SLOW_SECONDS:
        print(f"{' '.join(command)} took {seconds:.0f} s to end", file=sys.stderr)


def _ready(process: psutil.Popen, command: Sequence[str]) -> Served:
    said = []
    for line in process.stdout or ():
        said.append(line)
        try:
            entry = json.loads(line)  # a bare number is JSON too
        except ValueError:
            continue
        if isinstance(entry, int):
            return Served(process, entry)
        if isinstance(entry, dict) and entry.get("event") == "ready":
            names = ("metrics_port", "http_port", "transport")
            return Served(process, int(entry["grpc_port"]), *map(entry.get, names))
    raise RuntimeError(f"{' '.join(command)} ended before it was ready:\n{''.join(said)}")
