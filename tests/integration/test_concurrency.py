"""Many callers at a time, of one real server: answers are the bits that a lone caller gets."""

import asyncio
from collections.abc import Sequence

import grpc
import numpy as np
import pytest

from export.bundle import Bundle
from export.runtimes import Runner, open_runner
from forward.v1 import forward_pb2 as pb
from forward.v1.forward_pb2_grpc import ForwardServiceStub
from forward_client.messages import tensor_of
from tests.support.servers import RunningServer, metric

CALLERS = 48
TURNS = 12
SECONDS = 60


@pytest.fixture(scope="module")
def alone(bundle: Bundle) -> Runner:
    """The served runtime, in this process: it computes one request at a time."""
    return open_runner(bundle, "onnx", "cpu")


def random_requests(seed: int) -> list[np.ndarray]:
    """Return images of every kind: one or some or many, bytes or floats."""
    random = np.random.default_rng(seed)
    requests: list[np.ndarray] = []
    for _ in range(TURNS):
        count = int(random.choice([1, 1, 1, 2, 7, 33, 300]))
        images = random.integers(0, 256, (count, 28, 28), np.uint8)
        requests.append(
            images if random.random() < 0.5 else random.random(images.shape, np.float32)
        )
    return requests


def pixels(images: np.ndarray) -> np.ndarray:
    scale = 255 if images.dtype == np.uint8 else 1
    return (images.astype(np.float64) / scale).astype(np.float32)


def predict_all(
    server: RunningServer, callers: Sequence[Sequence[np.ndarray]]
) -> list[list[bytes]]:
    """Send every caller's requests one after the other, all callers at a time."""

    async def call(channel: grpc.aio.Channel, requests: Sequence[np.ndarray]) -> list[bytes]:
        predict = ForwardServiceStub(channel).Predict
        answers = []
        for images in requests:
            request = pb.PredictRequest(images=tensor_of(images))
            answers.append((await predict(request, timeout=SECONDS)).logits.data)
        return answers

    async def call_all() -> list[list[bytes]]:
        async with grpc.aio.insecure_channel(server.address) as channel:
            return list(await asyncio.gather(*(call(channel, each) for each in callers)))

    return asyncio.run(asyncio.wait_for(call_all(), SECONDS))


def trace_all(
    server: RunningServer, requests: Sequence[np.ndarray], first_index: int = 0
) -> list[pb.TraceResponse]:
    """Send all requests at a time, each with the stages and the detail of its index."""

    async def call_all() -> list[pb.TraceResponse]:
        async with grpc.aio.insecure_channel(server.address) as channel:
            trace = ForwardServiceStub(channel).Trace
            calls = [
                trace(trace_request(images, index), timeout=SECONDS)
                for index, images in enumerate(requests, first_index)
            ]
            return [await call for call in calls]

    return asyncio.run(asyncio.wait_for(call_all(), SECONDS))


def trace_request(images: np.ndarray, index: int) -> pb.TraceRequest:
    names = [[], ["relu"], ["output", "linear1"], ["flatten"]][index % 4]
    details = [pb.DETAIL_STATISTICS, pb.DETAIL_TOP_K, pb.DETAIL_FULL]
    return pb.TraceRequest(
        images=tensor_of(images),
        stages=[pb.StageSelection(name=name) for name in names],
        detail=details[index % 3],
    )


def test_shared_runs_are_bit_equal_to_single_ones(served: RunningServer, alone: Runner) -> None:
    callers = [random_requests(seed) for seed in range(CALLERS)]
    runs = metric(served, "forward_run_images_count", batcher="predict")
    found = predict_all(served, callers)
    runs = metric(served, "forward_run_images_count", batcher="predict") - runs
    for requests, answers in zip(callers, found, strict=True):
        for images, answer in zip(requests, answers, strict=True):
            assert answer == alone.predict(pixels(images)).tobytes()
    assert runs < CALLERS * TURNS / 2, "they have shared their runs"


def test_traces_of_shared_runs_are_unchanged(served: RunningServer, alone: Runner) -> None:
    requests = [images[:40] for seed in range(8) for images in random_requests(seed)]
    runs = metric(served, "forward_run_images_count", batcher="trace")
    together = trace_all(served, requests)
    runs = metric(served, "forward_run_images_count", batcher="trace") - runs
    assert runs < len(requests), "some have shared a run"
    for index, (images, found) in enumerate(zip(requests, together, strict=True)):
        assert found.logits.data == alone.predict(pixels(images)).tobytes()
        (lone,) = trace_all(served, [images], index)
        for answer in (found, lone):
            answer.queue_seconds = answer.run_seconds = 0
        assert found == lone
