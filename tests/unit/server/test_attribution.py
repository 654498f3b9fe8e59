"""The engine attributes what the runtime computed, of any runtime and depth, within its limits."""

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from export.architecture import Runtime
from export.attribution.attribute import Attributions, Method, Question
from export.bundle import Bundle
from server.engine.admission import AdmissionControl
from server.engine.attribution import AttributedRun
from server.engine.batcher import BatchingConfig
from server.engine.instance import ModelInstance, TraceSpec
from server.engine.model import load_verified
from server.errors import DeadlineExceededError, QueueFullError
from server.observability.metrics import ServerMetrics
from tests.support.bundles import publish_random_bundle, random_images
from tests.support.networks import TorchOracle

SHAPE, LABELS, MOST_IMAGES = (6, 7), ("a", "b", "c"), 16
IMAGES = random_images(5, SHAPE)
METHODS: tuple[Method, ...] = ("linear_region", "integrated_gradients", "saliency")


def opened(bundle: Bundle, runtime: Runtime, *, inline: bool = True) -> ModelInstance:
    model = load_verified(bundle, runtime, "cpu", threads=1)
    merge = model.runner.batch_invariant
    config = BatchingConfig(MOST_IMAGES, 0.005, MOST_IMAGES if merge and inline else 0, merge)
    return ModelInstance(model, AdmissionControl(64), config, ServerMetrics())


@pytest.fixture(params=[(8,), (9, 8)], ids=["shallow", "deep"])
def bundle(request: pytest.FixtureRequest, tmp_path: Path) -> Bundle:
    return publish_random_bundle(tmp_path, "random", SHAPE, LABELS, request.param)


@pytest.fixture
def instance(bundle: Bundle) -> Iterator[ModelInstance]:
    with closing(opened(bundle, "onnx")) as model_instance:
        yield model_instance


async def ask(
    instance: ModelInstance,
    images: np.ndarray,
    question: Question,
    deadline: float | None = None,
) -> Attributions:
    def pack(run: AttributedRun) -> Attributions:
        assert run.seconds > 0
        return run.attributions

    submission = instance.attribute(images, question, pack, deadline)
    try:
        return (await submission.result).result
    finally:
        submission.complete()


@pytest.mark.parametrize("runtime", ["onnx", "torchscript", "pt2"])
def test_each_runtime_is_attributed_within_its_bound(bundle: Bundle, runtime: Runtime) -> None:
    with closing(opened(bundle, runtime)) as instance:
        logits = instance.model.runner.predict(IMAGES)
        for method in METHODS:
            question = Question(method, 2, 1, "linear2")
            found = asyncio.run(ask(instance, IMAGES, question))
            np.testing.assert_array_equal(found.score, np.float64(logits[:, 2]) - logits[:, 1])
            assert (np.abs(found.residual) <= found.residual_bound).all()
            assert found.contributions.shape == IMAGES.shape
        weights = {
            name: array.astype(np.float32)
            for stage, layer in instance.model.network.layers.items()
            for name, array in ((f"{stage}.weight", layer.weight), (f"{stage}.bias", layer.bias))
        }
    values, gradients = TorchOracle(bundle.manifest.stages, weights).gradients(IMAGES, 2, 1)
    assert values["output"] == pytest.approx(logits, abs=1e-5)
    np.testing.assert_allclose(found.contributions, gradients["input"], rtol=1e-5, atol=1e-6)


def test_bytes_and_floats_are_attributed_alike(instance: ModelInstance) -> None:
    pixels = (IMAGES * 255).astype(np.uint8)
    for method in METHODS:
        as_bytes = asyncio.run(ask(instance, pixels, Question(method)))
        as_floats = asyncio.run(ask(instance, pixels / np.float32(255), Question(method)))
        np.testing.assert_array_equal(as_bytes.contributions, as_floats.contributions)


def test_requests_that_share_a_run_get_their_own_rows(bundle: Bundle) -> None:
    questions = [
        Question(METHODS[number % 3], number % 2, stage="linear1" if number % 4 else None)
        for number in range(12)
    ]

    async def together(instance: ModelInstance) -> list[Attributions]:
        return await asyncio.gather(
            *(ask(instance, IMAGES[n % 4 :][:2], each) for n, each in enumerate(questions))
        )

    with closing(opened(bundle, "onnx", inline=False)) as instance:  # they wait for the first
        for number, found in enumerate(asyncio.run(together(instance))):
            alone = asyncio.run(ask(instance, IMAGES[number % 4 :][:2], questions[number]))
            np.testing.assert_array_equal(found.target, alone.target)
            np.testing.assert_allclose(found.contributions, alone.contributions, atol=1e-6)
            assert (found.stage_contributions is None) == (number % 4 == 0)


@pytest.mark.parametrize("method", METHODS)
def test_a_passed_deadline_computes_nothing(instance: ModelInstance, method: Method) -> None:
    with pytest.raises(DeadlineExceededError, match="nothing was computed"):
        asyncio.run(ask(instance, IMAGES, Question(method), time.monotonic() - 1))
    assert instance.is_idle


def test_long_attributions_leave_the_other_batchers_alone(tmp_path: Path) -> None:
    """They run in a thread of their own, are bounded apart, and are waited for by nobody."""
    bundle = publish_random_bundle(tmp_path, "random", SHAPE, LABELS, (9, 8))
    may_end, threads = threading.Event(), []

    def held(_: AttributedRun) -> None:
        threads.append(threading.current_thread())
        assert may_end.wait(30)

    async def run(instance: ModelInstance) -> None:
        images, question = random_images(MOST_IMAGES, SHAPE), Question("integrated_gradients")
        long = instance.attribute(images, question, held, None)
        with pytest.raises(QueueFullError):
            instance.attribute(images[:1], question, held, None)
        assert len((await ask(instance, images, Question())).score) == MOST_IMAGES
        spec = TraceSpec(["output"])
        traced = instance.trace(images, spec, lambda run, _: run.values("output"), None)
        assert (await traced.result).result.shape == (MOST_IMAGES, 3)
        traced.complete()
        assert not long.result.done()
        is_idle = [instance.is_idle]
        may_end.set()
        await long.result
        long.complete()
        assert [*is_idle, instance.is_idle] == [False, True]
        assert threads[0] is not threading.main_thread()

    with closing(opened(bundle, "onnx")) as instance:
        asyncio.run(run(instance))
