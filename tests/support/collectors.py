"""Python's garbage collector switched off, in a server or here, and what it would have found."""

import gc
import json
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.servers import RunningServer, start_server, wait_until

# Python imports it before anything of the server, whose main thread then answers two signals.
SITECUSTOMIZE = """
import collections, gc, json, os, signal, sys, tracemalloc
gc.disable()

def report(found):
    path = os.environ["COLLECTOR_REPORT"]
    with open(path + ".part", "w") as file:
        file.write(json.dumps(found))  # to dump makes cycles
    os.replace(path + ".part", path)

def measure(*_):
    tracemalloc.start()  # nothing but the first time
    report(tracemalloc.get_traced_memory()[0])

def collect(*_):
    gc.set_debug(gc.DEBUG_SAVEALL)
    gc.collect()
    found = collections.Counter(type(each).__qualname__ for each in gc.garbage)
    gc.set_debug(0)
    gc.garbage.clear()
    gc.collect()
    report(found)

if "-m" in sys.argv[:1]:  # the server; what it starts itself is none of ours
    signal.signal(signal.SIGRTMIN, measure)
    signal.signal(signal.SIGUSR2, collect)
"""
# grpc.aio makes a cycle of these in every call, a function and the scope that it was made in. It
# holds the call's metadata, at most --max-metadata-bytes, and never a request.
OF_GRPC = {"tuple", "_Metadatum", "_HandlerCallDetails", "cython_function_or_method"}
SCOPE_OF_GRPC = "__pyx_scope_struct"


@dataclass(frozen=True)
class UncollectedServer:
    """A server whose collector is off."""

    running: RunningServer
    report: Path

    def traced_bytes(self) -> int:
        """Return the bytes that Python has allocated, since it was first asked, and not freed."""
        return int(self._ask(signal.SIGRTMIN))

    def cycles(self) -> dict[str, int]:
        """Collect; return how many objects of what types had waited, less grpc.aio's own."""
        found: dict[str, int] = self._ask(signal.SIGUSR2)
        return {
            name: count
            for name, count in found.items()
            if name not in OF_GRPC and not name.startswith(SCOPE_OF_GRPC)
        }

    def _ask(self, number: signal.Signals) -> Any:  # noqa: ANN401 (any value of JSON)
        self.report.unlink(missing_ok=True)
        self.running.process.send_signal(number)
        wait_until(self.report.exists)
        return json.loads(self.report.read_text())


@contextmanager
def start_uncollected_server(*arguments: str) -> Iterator[UncollectedServer]:
    """Start a server that never collects garbage unless it is asked to."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report"
        (Path(folder) / "sitecustomize.py").write_text(SITECUSTOMIZE)
        with start_server(*arguments, PYTHONPATH=folder, COLLECTOR_REPORT=str(report)) as running:
            yield UncollectedServer(running, report)


@contextmanager
def uncollected() -> Iterator[list[Any]]:
    """Switch this process's collector off; after the block the list has what it then finds."""
    found: list[Any] = []
    gc.collect()
    gc.freeze()  # what there is already need not be looked through
    gc.disable()
    try:
        yield found
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        found += gc.garbage
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.unfreeze()
        gc.enable()
