"""Comparisons run apart from serving: how many at a time, when they end, what they open."""

import asyncio
import gc
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
from google.rpc import error_details_pb2

from export.bundle import Bundle
from export.bundle.manifest import MANIFEST_NAME
from export.runtimes import Runner
from export.runtimes.changes import Changes
from forward.v1 import forward_pb2 as pb
from forward_client.messages import tensor_of
from server.api.forward_v1.service import ForwardService
from server.api.forward_v1.zero_copy import ImageRequest
from server.engine.admission import AdmissionControl
from server.engine.comparisons import Comparisons
from server.engine.model import load_verified
from server.errors import (
    DeadlineExceededError,
    InvalidArgumentError,
    TooManyComparisonsError,
    UnavailableError,
)
from server.limits import RequestLimits
from server.observability.metrics import ServerMetrics
from server.repository.current import CurrentModel, activate
from tests.support.bundles import REPOSITORY, random_images
from tests.support.servers import BareContext, threaded_instance

IMAGES = random_images(3, (3, 5))
SECONDS = 60


class WaitingRunner:
    """A runner whose runs wait in the threads of comparisons, and nowhere else."""

    can_intervene = False

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self.runtime, self.device = runner.runtime, runner.device
        self.provider, self.precision = runner.provider, runner.precision
        self.batch_invariant = runner.batch_invariant
        self.let_go = threading.Event()
        self.started = threading.Event()

    def _wait(self) -> None:
        if threading.current_thread().name.startswith("forward-compare"):
            self.started.set()
            assert self.let_go.wait(SECONDS)

    def predict(self, images: np.ndarray) -> np.ndarray:
        self._wait()
        return self._runner.predict(images)

    def trace(self, images: np.ndarray, stages: Sequence[str]) -> dict[str, np.ndarray]:
        self._wait()
        return self._runner.trace(images, stages)

    def intervene(
        self, images: np.ndarray, stages: Sequence[str], changes: Changes
    ) -> dict[str, np.ndarray]:
        raise NotImplementedError


@dataclass
class Held:
    runner: WaitingRunner
    service: ForwardService


@pytest.fixture
def held(tiny: Bundle) -> Iterator[Held]:
    opened = load_verified(tiny, "onnx", "cpu", threads=1)
    runner = WaitingRunner(opened.runner)
    model = replace(opened, runner=runner)
    instance = threaded_instance(model, AdmissionControl(8), ServerMetrics(), 8)
    service = ForwardService(CurrentModel(activate(instance, 8)), RequestLimits(8, 1 << 20))
    yield Held(runner, service)
    runner.let_go.set()
    instance.close()


def request() -> ImageRequest[pb.CompareRequest]:
    message = pb.CompareRequest(images=tensor_of(IMAGES), runtimes=["onnx", "numpy"])
    return ImageRequest(message, message.images.data)


async def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.005)


def test_predict_does_not_wait_for_a_comparison(held: Held) -> None:
    async def run() -> None:
        comparing = asyncio.create_task(held.service.compare(request(), BareContext()))
        await until(held.runner.started.is_set)
        message = pb.PredictRequest(images=tensor_of(IMAGES))
        one = ImageRequest(message, message.images.data)
        response = await asyncio.wait_for(held.service.predict(one, BareContext()), SECONDS)
        assert response.logits.shape == [3, 2]
        assert not comparing.done()
        held.runner.let_go.set()
        assert len((await comparing).runtimes) == 2

    asyncio.run(run())


def test_one_comparison_too_many_is_told_when_to_retry(held: Held) -> None:
    async def run() -> None:
        comparing = asyncio.create_task(held.service.compare(request(), BareContext()))
        await until(held.runner.started.is_set)
        with pytest.raises(TooManyComparisonsError, match="at most 1 comparisons run") as refused:
            await held.service.compare(request(), BareContext())
        (detail,) = refused.value.details()
        assert isinstance(detail, error_details_pb2.RetryInfo)
        assert detail.retry_delay.ToNanoseconds() > 0
        held.runner.let_go.set()
        await comparing
        assert (await held.service.compare(request(), BareContext())).certified_share <= 1

    asyncio.run(run())


def test_a_cancelled_comparison_keeps_its_place_until_it_stops() -> None:
    async def run() -> None:
        comparisons, told, ended = Comparisons(1), threading.Event(), threading.Event()

        def work(is_stopped: Callable[[], bool]) -> None:
            latest = time.monotonic() + SECONDS
            while not is_stopped() and time.monotonic() < latest:
                time.sleep(0.001)
            if is_stopped():
                told.set()
            assert ended.wait(SECONDS)

        task = asyncio.create_task(comparisons.run(work, None))
        await asyncio.sleep(0)
        task.cancel()
        await until(told.is_set)
        with pytest.raises(TooManyComparisonsError):
            await comparisons.run(lambda _: None, None)
        ended.set()
        await until(lambda: not comparisons.running)
        assert await comparisons.run(lambda _: "done", None) == "done"

    asyncio.run(run())


def test_a_comparison_that_is_late_is_not_begun() -> None:
    async def run() -> None:
        begun: list[bool] = []
        with pytest.raises(DeadlineExceededError, match="nothing was computed"):
            await Comparisons(1).run(lambda _: begun.append(True), time.monotonic() - 1)
        assert begun == []

    asyncio.run(run())


def test_several_run_at_a_time_if_that_is_allowed() -> None:
    async def run() -> None:
        together, comparisons = threading.Barrier(3), Comparisons(3)
        work = [comparisons.run(lambda _: together.wait(SECONDS), None) for _ in range(3)]
        assert sorted(await asyncio.gather(*work)) == [0, 1, 2]

    asyncio.run(run())


def test_the_runtimes_of_a_version_are_freed_with_it(tiny: Bundle) -> None:
    model = load_verified(tiny, "onnx", "cpu", threads=1)
    model.compared.compare(["numpy", "onnx"], IMAGES, lambda: False)
    kept = weakref.ref(model.compared)
    gc.disable()
    try:
        del model
        assert kept() is None
    finally:
        gc.enable()


def test_a_folder_that_is_gone_leaves_what_is_in_memory(tiny: Bundle) -> None:
    model = load_verified(tiny, "onnx", "cpu", threads=1)
    for name in tiny.names | {MANIFEST_NAME}:
        (tiny.path / name).unlink()
    assert model.compared.compare(["onnx"], IMAGES, lambda: False).runtimes[0].diverges_at is None
    with pytest.raises(UnavailableError, match="'eager' can't be opened, the version's folder"):
        model.compared.compare(["onnx", "eager"], IMAGES, lambda: False)


def test_torch_is_imported_only_when_it_is_asked_for(tiny: Bundle) -> None:
    code = """
import sys
from pathlib import Path
import numpy as np
from export.bundle import open_bundle
from server.engine.model import load_verified
model = load_verified(open_bundle(Path(sys.argv[1])), "onnx", "cpu", threads=1)
model.compared.compare(["numpy", "onnx"], np.zeros((2, 3, 5), np.float32), lambda: False)
print(*model.compared.available, bool(sys.modules.get("torch")))
"""
    for blocked, expected in (
        ("", "numpy onnx eager False"),
        ("import sys; sys.modules['torch'] = None\n", "numpy onnx False"),
    ):
        done = subprocess.run(
            [sys.executable, "-c", blocked + code, str(tiny.path)],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip().splitlines()[-1] == expected


def test_programs_of_a_bundle_are_opened_only_when_allowed(tiny: Bundle) -> None:
    opened = load_verified(tiny, "onnx", "cpu", threads=1)
    assert opened.compared.available == ("numpy", "onnx", "eager")
    allowed = replace(opened, compare_programs=True).compared
    assert allowed.available == ("numpy", "onnx", "eager", "torchscript", "pt2")
    served = load_verified(tiny, "torchscript", "cpu", threads=1).compared
    assert served.available == ("numpy", "onnx", "eager", "torchscript")


def test_a_program_that_is_not_allowed_names_the_setting(held: Held) -> None:
    message = pb.CompareRequest(images=tensor_of(IMAGES), runtimes=["onnx", "pt2"])
    call = held.service.compare(ImageRequest(message, message.images.data), BareContext())
    with pytest.raises(InvalidArgumentError) as refused:
        asyncio.run(call)
    (violation,) = refused.value.violations
    assert violation.field == "runtimes[1]"
    assert "this server has numpy, onnx, eager, got 'pt2'" in violation.description
    assert "--compare-programs" in violation.description
