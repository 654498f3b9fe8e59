"""Server processes under measurement: started on a free port, metered, ended by their own PID."""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import psutil


@dataclass(frozen=True)
class Served:
    """A server process that answers on a port of the loopback address."""

    process: psutil.Popen
    port: int

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

    def _family(self) -> list[psutil.Process]:
        return [psutil.Process(self.process.pid), *self.process.children(recursive=True)]


@contextmanager
def running(
    module: str,
    *arguments: str,
    python: str = sys.executable,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Served]:
    """Start a module that prints its port, or logs it as "ready"; end it at the end."""
    command = [python, "-m", module, *arguments]
    with psutil.Popen(
        command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment
    ) as process:
        try:
            yield Served(process, _port(process, command))
        finally:
            process.terminate()


def _port(process: psutil.Popen, command: Sequence[str]) -> int:
    said = []
    for line in process.stdout or ():
        said.append(line)
        try:
            entry = json.loads(line)  # a bare number is JSON too
        except ValueError:
            continue
        if isinstance(entry, int):
            return entry
        if isinstance(entry, dict) and entry.get("event") == "ready":
            return int(entry["grpc_port"])
    raise RuntimeError(f"{' '.join(command)} ended before it was ready:\n{''.join(said)}")
