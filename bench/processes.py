"""Server processes under measurement: started on a free port, metered, ended by their own PID."""

import collections
import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import psutil

END_SECONDS = 15.0


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


@contextlib.contextmanager
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
            served = Served(process, _port(process, command))
            # What it says from here on is read and dropped, or a full pipe would stop it.
            drain = threading.Thread(
                target=collections.deque, args=(process.stdout, 0), daemon=True
            )
            drain.start()
            yield served
        finally:
            _end(process)


def _end(process: psutil.Popen) -> None:
    """End a process by SIGTERM, and what is left of it and its children by SIGKILL."""
    with contextlib.suppress(psutil.NoSuchProcess):  # it has ended by itself
        family = [process, *process.children(recursive=True)]
        process.terminate()
        _, left = psutil.wait_procs(family, timeout=END_SECONDS)
        for each in left:
            each.kill()


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
