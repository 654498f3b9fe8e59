"""A real server whose runs of ONNX Runtime fail while a file is there."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.servers import RunningServer, start_server

# Python imports it before anything of the server.
SITECUSTOMIZE = """
import os, sys

if "-m" in sys.argv[:1]:  # the server; what it starts itself is none of ours
    import onnxruntime

    run = onnxruntime.InferenceSession.run

    def run_or_fail(self, *arguments, **named):
        if os.path.exists(os.environ["RUNS_FAIL"]):
            raise RuntimeError("the runtime is broken, by a test")
        return run(self, *arguments, **named)

    onnxruntime.InferenceSession.run = run_or_fail
"""


@dataclass(frozen=True)
class FailingServer:
    """A server, and the file that breaks its runtime."""

    running: RunningServer
    _switch: Path

    @contextmanager
    def broken(self) -> Iterator[None]:
        """Have every run through Python fail in the block; those of the native lane go on."""
        self._switch.touch()
        try:
            yield
        finally:
            self._switch.unlink()


@contextmanager
def start_failing_server(*arguments: str) -> Iterator[FailingServer]:
    """Start a server whose runtime can be broken."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "sitecustomize.py").write_text(SITECUSTOMIZE)
        switch = folder / "runs-fail"
        with start_server(*arguments, PYTHONPATH=name, RUNS_FAIL=str(switch)) as running:
            yield FailingServer(running, switch)
