"""Draw the dashboards of a real server that gets into trouble: `python -m docs.dashboards.picture`.

For a minute and a half: good calls; a version that cannot be loaded; a broken runtime; wrong
requests; in the end more calls than there is room for. The rules are quickened, so that 5 minutes
are 10 s.
"""

import http.client
import itertools
import json
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import numpy as np

from docs.dashboards import FOLDER
from docs.dashboards.drawing import Run, draw
from export.settings import read_settings
from forward_client import ForwardClient, ForwardError
from tests.support.bundles import MODELS_DIR
from tests.support.failing_runs import FailingServer, start_failing_server
from tests.support.prometheus import RULES, Prometheus, quickened, start_prometheus
from training.config import TrainingSettings
from training.data import load

FACTOR = 30
INTERVAL = "1s"
# And how many rows of their grids are drawn.
PICTURES = {"forward-overview": 21, "forward-details": 51}
ALL = {"$__rate_interval": "5s", "$instance": ".*"}
ROOM = 64  # images in the queue
PAUSE_SECONDS = 0.004

Work = Callable[[ForwardClient], object]


class Load:
    """Callers that go on until the end, whatever comes of their calls."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._ended = threading.Event()
        self._threads: list[threading.Thread] = []

    def add(self, work: Work, callers: int = 1, pause: float = PAUSE_SECONDS) -> None:
        """Let more callers do something again and again."""
        for _ in range(callers):
            thread = threading.Thread(target=self._run, args=(work, pause))
            self._threads.append(thread)
            thread.start()

    def _run(self, work: Work, pause: float) -> None:
        with ForwardClient(self._address, timeout_seconds=10) as client:
            while not self._ended.wait(pause):
                with suppress(ForwardError):
                    work(client)

    def end(self) -> None:
        """Let every caller's current call be its last."""
        self._ended.set()
        for thread in self._threads:
            thread.join()


def main() -> None:
    """Run the server, and write the pictures."""
    settings = read_settings(TrainingSettings, [])
    images = load("mnist", settings.data_dir, settings.mirror).test.pixels().numpy()
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        models = Path(name) / "mnist"
        shutil.copytree(MODELS_DIR / "mnist" / "1", models / "1")
        options = ("--http-port", "0", "--models-dir", name, "--reload-interval", "0.5")
        room = ("--max-batch-images", str(ROOM), "--max-queue-images", str(ROOM))
        failing = stack.enter_context(start_failing_server(*options, *room))
        rules = [quickened(path.read_text(), FACTOR) for path in RULES]
        address = f"127.0.0.1:{failing.running.ready['metrics_port']}"
        prometheus = stack.enter_context(
            start_prometheus([address], rules=rules, interval=INTERVAL)
        )
        load_ = Load(failing.running.address)
        stack.callback(load_.end)
        _draw(prometheus, *_trouble(load_, failing, images, models))


def _trouble(
    load_: Load, failing: FailingServer, images: np.ndarray, models: Path
) -> tuple[float, float]:
    """Bring the server into trouble; return when that began and when to look."""
    start = time.time()
    turn = itertools.cycle(range(len(images)))
    http_port = int(failing.running.ready["http_port"])
    load_.add(lambda client: client.predict(images[next(turn)]), callers=4)
    load_.add(lambda client: client.trace(images[next(turn)]), pause=0.02)
    load_.add(lambda _: _ask(http_port), pause=0.02)
    time.sleep(30)
    shutil.copytree(models / "1", models / "2")  # its manifest says that it is version 1
    time.sleep(10)
    with failing.runs("fail"):
        time.sleep(12)
    time.sleep(8)
    load_.add(lambda client: client.predict(np.zeros((5, 5), np.uint8)), callers=2, pause=0.01)
    time.sleep(10)
    batches = images[: len(images) // ROOM * ROOM].reshape(-1, ROOM, *images.shape[1:])
    many = itertools.cycle(range(len(batches)))
    load_.add(lambda client: client.predict(batches[next(many)]), callers=8, pause=0.001)
    time.sleep(25)
    return start, time.time() - 1


def _ask(port: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/v2/models/mnist")
    connection.getresponse().read()
    connection.close()


def _draw(prometheus: Prometheus, start: float, end: float) -> None:
    run = Run(prometheus, start, end, _reworded)
    for name, rows in PICTURES.items():
        board: Any = json.loads((FOLDER / f"{name}.json").read_text())
        Path(f"docs/{name.replace('forward', 'dashboard')}.png").write_bytes(draw(board, run, rows))


def _reworded(expression: str) -> str:
    for variable, value in ALL.items():
        expression = expression.replace(variable, value)
    return quickened(expression, 1 if "[5s]" in expression else FACTOR)


if __name__ == "__main__":
    main()
