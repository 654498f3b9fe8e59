"""A real server whose runs of ONNX Runtime fail, or take for ever, while a file is there."""

import tempfile
from collections.abc import Iterator
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

    run = onnxruntime.InferenceSession.run
    folder = os.path.dirname(__file__)

    def run_otherwise(self, *arguments, **named):
        if os.path.exists(os.path.join(folder, "fail")):
            raise RuntimeError("the runtime is broken, by a test")
        is_main = threading.current_thread() is threading.main_thread()  # the event loop's
        while os.path.exists(os.path.join(folder, "block" if is_main else "wait")):
            time.sleep(0.01)
        return run(self, *arguments, **named)

    onnxruntime.InferenceSession.run = run_otherwise
"""


@dataclass(frozen=True)
class FailingServer:
    """A server whose runtime can be broken. The native lane has its own, which goes on."""

    running: RunningServer
    _folder: Path

    @contextmanager
    def runs(self, what: Literal["fail", "wait", "block"]) -> Iterator[None]:
        """Have runs do something else in the block.

        Args:
            what: all fail; those in threads of their own wait for the end of the block; or those in
                the event loop's do, and block it.
        """
        file = self._folder / what
        file.touch()
        try:
            yield
        finally:
            file.unlink()


@contextmanager
def start_failing_server(*arguments: str) -> Iterator[FailingServer]:
    """Start a server whose runtime can be broken."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "sitecustomize.py").write_text(SITECUSTOMIZE)
        with start_server(*arguments, PYTHONPATH=name) as running:
            yield FailingServer(running, folder)
