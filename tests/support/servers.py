"""Real servers: a process on free ports, and one in this process whose runtime can be held."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from export.bundle import Bundle
from export.runtimes import Runner
from export.runtimes.changes import Changes
from export.settings import read_settings
from server.api.services import build_services
from server.config import ServerSettings
from server.engine.admission import AdmissionControl
from server.engine.batcher import BatchingConfig
from server.engine.instance import ModelInstance
from server.engine.model import ServedModel, load_verified
from server.lifecycle.gate import CallGate
from server.lifecycle.shutdown import drain
from server.lifecycle.state import ServingState
from server.limits import RequestLimits
from server.observability.calls import CallObserver
from server.observability.engine_metrics import BATCHERS
from server.observability.metrics import ServerMetrics
from server.observability.records import CallRecord
from server.repository.current import CurrentModel, activate
from server.repository.loader import receive_limit
from server.repository.versions import VersionStatus
from server.security.policy import Security
from server.transport.grpc.server import service_handlers
from server.transport.http.app import HttpOptions, build_app
from server.transport.http.server import HttpServer
from server.transport.native.extension import open_extension
from server.transports import Entrance, open_grpc
from tests.support.bundles import REPOSITORY
from tests.support.transports import chosen_transport, counted

START_SECONDS = 240  # of a machine with much else to do; below the 300 s of a test
HELD_BATCH_IMAGES = 8
# A server takes the GPU of a machine that has one: what the tests compare with is of the CPU.
NO_GPU, GPU = {"CUDA_VISIBLE_DEVICES": ""}, {"CUDA_VISIBLE_DEVICES": "0"}

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


@dataclass
class RunningServer:
    """A server process that said that it is ready."""

    process: subprocess.Popen[bytes]
    log_path: Path
    ready: dict[str, Any]

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.ready['grpc_port']}"

    @property
    def http_address(self) -> str:
        return f"127.0.0.1:{self.ready['http_port']}"

    @property
    def metrics_url(self) -> str:
        return f"http://127.0.0.1:{self.ready['metrics_port']}/metrics"

    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log_path.read_text().splitlines()]

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(timeout=60)


def scrape(server: RunningServer) -> Series:
    """Return every series of a server's metrics."""
    with urllib.request.urlopen(server.metrics_url, timeout=30) as response:  # noqa: S310 (the test's own server)
        text = response.read().decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def metric(server: RunningServer, name: str, **labels: str) -> float:
    """Return one series of a server's metrics as it is now."""
    return scrape(server)[name, frozenset(labels.items())]


def handled(
    server: RunningServer,
    method: str,
    code: str,
    kind: str = "unary",
    service: str = "forward.v1.ForwardService",
) -> float:
    """Return how many gRPC calls of a method have ended with a status, also if none has."""
    labels = {"grpc_service": service, "grpc_method": method, "grpc_type": kind}
    key = frozenset({**labels, "grpc_code": code}.items())
    return scrape(server).get(("grpc_server_handled_total", key), 0)


def wait_until(condition: Callable[[], bool], seconds: float = 20) -> None:
    """Return when the condition holds; fail if it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.01)


def server_command(arguments: Sequence[str]) -> list[str]:
    """Return the command of a server with the transport that is tested now.

    Without `--http-port` it has no HTTP.
    """
    http = () if "--http-port" in arguments else ("--http-port", "off")
    transport = () if "--transport" in arguments else ("--transport", chosen_transport())
    return [sys.executable, "-W", "error", "-m", "server", *http, *transport, *arguments]


@contextmanager
def start_server(
    *arguments: str, prefix: Sequence[str] = (), **environment: str
) -> Iterator[RunningServer]:
    """Start `python -m server`, after the words of `prefix`, on free ports; end it at the end."""
    ports = ("--grpc-port", "0", "--metrics-port", "0", "--log-format", "json")
    with tempfile.TemporaryDirectory() as folder:
        log_path = Path(folder) / "log"
        with (
            nullcontext() if "--transport" in arguments else counted(),
            log_path.open("wb") as log,
            subprocess.Popen(
                [*prefix, *server_command([*ports, *arguments])],
                cwd=REPOSITORY,
                stderr=log,
                env={**os.environ, **NO_GPU, **environment},
            ) as process,
        ):
            try:
                yield RunningServer(process, log_path, _wait_until_ready(process, log_path))
            finally:
                process.kill()


def _wait_until_ready(process: subprocess.Popen[bytes], log_path: Path) -> dict[str, Any]:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        for line in log_path.read_text().splitlines():
            if '"event": "ready"' in line:
                entry: dict[str, Any] = json.loads(line)
                return entry
        if process.poll() is not None:
            break
        time.sleep(0.02)
    raise AssertionError(f"the server did not become ready:\n{log_path.read_text()}")


def run_server_until_it_ends(
    *arguments: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a server that is expected not to start."""
    return subprocess.run(
        server_command(arguments),
        cwd=REPOSITORY,
        env={**os.environ, **NO_GPU, **environment},
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
        check=False,
    )


class HeldRunner:
    """A runner whose runs wait until they are let go; it counts them."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self.runtime, self.device = runner.runtime, runner.device
        self.provider, self.precision = runner.provider, runner.precision
        self.batch_invariant = runner.batch_invariant
        self.let_go = threading.Event()
        self.started = threading.Semaphore(0)
        self.runs = 0

    def predict(self, images: np.ndarray) -> np.ndarray:
        self.runs += 1
        self.started.release()
        assert self.let_go.wait(30)
        return self._runner.predict(images)

    def trace(self, images: np.ndarray, stages: Sequence[str]) -> dict[str, np.ndarray]:  # noqa: ARG002 (the interface)
        raise MemoryError("the secret cause")  # an unexpected failure

    can_intervene = False

    def intervene(
        self,
        images: np.ndarray,
        stages: Sequence[str],
        changes: Changes,
    ) -> dict[str, np.ndarray]:
        raise NotImplementedError


@dataclass
class HeldServer:
    """A server in this process, in a thread with an event loop of its own."""

    address: str
    runner: HeldRunner
    admission: AdmissionControl
    metrics: ServerMetrics
    ended: list[CallRecord]  # the calls, in the order of their ends
    drain: Any  # starts a drain, returns a concurrent future
    loop: asyncio.AbstractEventLoop
    http_address: str
    observer: CallObserver


class BareContext:
    """The context of a call of a service without a transport."""

    peer = "test"
    deadline: float | None = None

    def __init__(self) -> None:
        self.record = CallRecord("test", "grpc", self.peer, "the-id")
        self._done_callbacks: list[Callable[[], None]] = []
        self._drain_callbacks: list[Callable[[], None]] = []

    def add_done_callback(self, callback: Callable[[], None]) -> None:
        self._done_callbacks.append(callback)

    def add_drain_callback(self, callback: Callable[[], None]) -> None:
        self._drain_callbacks.append(callback)

    def end(self) -> None:
        """Report that the response has been sent."""
        self._drain_callbacks.clear()
        for callback in self._done_callbacks:
            callback()

    def drain(self) -> None:
        """Tell that the server wants the call to end."""
        for callback in self._drain_callbacks:
            callback()


def threaded_instance(
    model: ServedModel, admission: AdmissionControl, metrics: ServerMetrics, max_batch_images: int
) -> ModelInstance:
    """Return an instance whose every run is in a thread, so that a held one holds nothing else."""
    config = BatchingConfig(
        max_batch_images=max_batch_images,
        max_queue_delay_seconds=0.005,
        inline_images=0,
        merge=model.runner.batch_invariant,
    )
    return ModelInstance(model, admission, config, metrics)


@contextmanager
def start_held_server(bundle: Bundle, max_queue_images: int = 8) -> Iterator[HeldServer]:
    """Serve a bundle through a HeldRunner, with the transport that is tested now."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    opened = load_verified(bundle, "onnx", "cpu", threads=1)
    runner = HeldRunner(opened.runner)
    model = replace(opened, runner=runner)
    native = open_extension(max_queue_images) if chosen_transport() == "native" else None
    admission = AdmissionControl(max_queue_images, native.images if native else None)
    metrics = ServerMetrics()
    observer = CallObserver(metrics)
    ended: list[CallRecord] = []
    observer.add_end_callback(ended.append)
    limits = RequestLimits(max_batch_images=HELD_BATCH_IMAGES, max_response_bytes=1 << 20)
    instance = threaded_instance(model, admission, metrics, limits.max_batch_images)
    for batcher in BATCHERS:
        metrics.engine.add_oldest(batcher, partial(instance.oldest_seconds, batcher))
    state, gate = ServingState(), CallGate()

    async def start() -> tuple[Any, int, HttpServer, int]:
        current = CurrentModel(activate(instance, limits.max_batch_images))
        services = build_services(
            current,
            limits,
            state,
            lambda served: [VersionStatus(served, "READY", "")],
            metrics,
        )
        handlers = service_handlers(services, observer, gate, state)
        entrance = Entrance(
            read_settings(ServerSettings, ["--grpc-port", "0"]),
            Security(tls=None, tokens=None),
            observer,
            state,
            gate,
            receive_limit(model, limits),
            native,
        )
        server, port = open_grpc(handlers, entrance, max_connections=100)
        await server.start()
        http_options = HttpOptions(receive_limit(model, limits))
        http = HttpServer(build_app(services, state, gate, observer, http_options), 20)
        return server, port, http, await http.listen("127.0.0.1", 0)

    server, port, http, http_port = asyncio.run_coroutine_threadsafe(start(), loop).result(30)
    try:
        yield HeldServer(
            f"127.0.0.1:{port}",
            runner,
            admission,
            metrics,
            ended,
            lambda seconds: asyncio.run_coroutine_threadsafe(
                drain([server, http], state, gate, seconds), loop
            ),
            loop,
            f"127.0.0.1:{http_port}",
            observer,
        )
    finally:
        runner.let_go.set()
        asyncio.run_coroutine_threadsafe(server.stop(0), loop).result(30)
        asyncio.run_coroutine_threadsafe(http.stop(0), loop).result(30)
        instance.close()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
