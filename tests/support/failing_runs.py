"""A real server whose runs of ONNX Runtime fail, or take longer, while a file is there."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tests.support.servers import RunningServer, start_server

# Python imports it before anything of the server.
SITECUSTOMIZE = """
import os, sys, threading, time

if "-m" in sys.argv[:1]:  # the server; what it starts itself is none of ours
    import onnxruntime

    run, list_folder = onnxruntime.InferenceSession.run, os.listdir
    folder = os.path.dirname(__file__)

    def is_there(name):
        return os.path.exists(os.path.join(folder, name))

    def run_otherwise(self, *arguments, **named):
        is_main = threading.current_thread() is threading.main_thread()  # the event loop's
        if not is_main and is_there("slow"):
            time.sleep(0.1)
        if is_there("fail"):
            raise RuntimeError("the runtime is broken, by a test")
        while is_there("block" if is_main else "wait"):
            time.sleep(0.01)
        return run(self, *arguments, **named)

    def list_otherwise(path="."):
        if is_there("list") and not str(path).startswith("/proc"):  # the metrics read that
            raise MemoryError("no memory is left, by a test")
        return list_folder(path)

    onnxruntime.InferenceSession.run = run_otherwise
    os.listdir = list_otherwise
"""


@dataclass(frozen=True)
class FailingServer:
    """A server that can be broken. The native lane has a runtime of its own, which goes on."""

    running: RunningServer
    _folder: Path

    @contextmanager
    def runs(self, what: Literal["fail", "slow", "wait", "block"]) -> Iterator[None]:
        """Have runs do something else in the block.

        Args:
            what: all fail; those in threads of their own take 0.1 s longer, or wait for the end
                of the block; or those in the event loop do, and block it.
        """
        with self._broken(what):
            yield

    @contextmanager
    def no_memory_to_list_folders(self) -> Iterator[None]:
        """Have the search for versions fail in the block, by what nobody foresaw."""
        with self._broken("list"):
            yield

    @contextmanager
    def _broken(self, what: str) -> Iterator[None]:
        file = self._folder / what
        file.touch()
        try:
            yield
        finally:
            file.unlink()


@contextmanager
def start_failing_server(*arguments: str, prefix: Sequence[str] = ()) -> Iterator[FailingServer]:
    """Start a server that can be broken."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "sitecustomize.py").write_text(SITECUSTOMIZE)
        with start_server(*arguments, prefix=prefix, PYTHONPATH=name) as running:
            yield FailingServer(running, folder)
