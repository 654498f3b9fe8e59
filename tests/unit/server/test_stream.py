"""One stream when the server drains or the transport fails, at moments hard to hit from outside."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import pytest

from export.bundle import Bundle
from forward.v1 import forward_pb2 as pb
from forward_client.messages import tensor_of
from server.api.forward_v1.stream import PredictStream, StreamRequest
from server.api.forward_v1.zero_copy import ImageRequest
from server.engine.admission import AdmissionControl
from server.engine.model import load_verified
from server.errors import UnavailableError
from server.observability.metrics import ServerMetrics
from server.repository.current import CurrentModel, activate
from tests.support.bundles import random_images
from tests.support.servers import BareContext, HeldRunner, threaded_instance

IMAGES = random_images(2, (28, 28))


class DrainedContext(BareContext):
    """A context that the test drains."""

    def __init__(self, *, at_once: bool) -> None:
        super().__init__()
        self._at_once = at_once

    def add_drain_callback(self, callback: Callable[[], None]) -> None:
        super().add_drain_callback(callback)
        if self._at_once:
            callback()


@dataclass
class HeldModel:
    """A model whose runs the test lets go."""

    runner: HeldRunner
    current: CurrentModel
    admission: AdmissionControl


@pytest.fixture
def held(bundle: Bundle) -> Iterator[HeldModel]:
    opened = load_verified(bundle, "onnx", "cpu", threads=1)
    runner, admission = HeldRunner(opened.runner), AdmissionControl(8)
    model = replace(opened, runner=runner)
    instance = threaded_instance(model, admission, ServerMetrics(), 8)
    yield HeldModel(runner, CurrentModel(activate(instance, 8)), admission)
    runner.let_go.set()
    instance.close()


async def requests() -> AsyncIterator[StreamRequest]:
    for image in IMAGES:
        message = pb.PredictStreamRequest(images=tensor_of(image[None]))
        yield ImageRequest(message, message.images.data)


async def responses(context: BareContext, current: CurrentModel) -> list[pb.PredictStreamResponse]:
    stream = PredictStream(current, context, 8)
    return [response async for response in stream.responses(requests())]


def logits(responses: list[pb.PredictStreamResponse]) -> np.ndarray:
    return np.array([np.frombuffer(each.logits.data, "<f4") for each in responses])


def test_a_stream_begun_in_a_drain_ends(held: HeldModel) -> None:
    async def run() -> None:
        with pytest.raises(UnavailableError):
            await asyncio.wait_for(responses(DrainedContext(at_once=True), held.current), 5)

    asyncio.run(run())


def test_a_drain_answers_what_a_stream_sent(held: HeldModel) -> None:
    async def run() -> list[pb.PredictStreamResponse]:
        context = DrainedContext(at_once=False)
        running = asyncio.create_task(responses(context, held.current))
        while held.admission.images < len(IMAGES):  # noqa: ASYNC110 (nothing tells it)
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.05)  # the requests have ended
        context.drain()
        held.runner.let_go.set()
        return await asyncio.wait_for(running, 5)

    answered = logits(asyncio.run(run()))
    np.testing.assert_array_equal(answered, held.runner.predict(IMAGES))


def test_what_the_transport_raises_comes_after_the_answers(held: HeldModel) -> None:
    async def cut() -> AsyncIterator[StreamRequest]:
        async for request in requests():
            yield request
            raise ConnectionError("the transport's own")

    async def run() -> list[pb.PredictStreamResponse]:
        stream = PredictStream(held.current, BareContext(), 8).responses(cut())
        answered = [await anext(stream)]
        with pytest.raises(ConnectionError, match="the transport's own"):
            await anext(stream)
        return answered

    held.runner.let_go.set()
    answered = logits(asyncio.run(run()))
    np.testing.assert_array_equal(answered, held.runner.predict(IMAGES[:1]))


def test_each_answer_is_of_the_version_in_the_record(held: HeldModel) -> None:
    first = held.current.active
    second = replace(first, identity=first.identity._replace(version=2))

    async def replaced() -> AsyncIterator[StreamRequest]:
        async for request in requests():
            yield request
            held.current.replace(second)
        held.runner.let_go.set()  # both have asked by now, and neither is answered

    async def run() -> list[tuple[int, int]]:
        context = BareContext()
        stream = PredictStream(held.current, context, 8).responses(replaced())
        return [(each.model.version, context.record.model_version) async for each in stream]

    assert asyncio.run(run()) == [(1, 1), (2, 2)]
