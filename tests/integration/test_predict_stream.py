"""PredictStream of a real server: in order, bounded, errors one by one."""

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import pytest
from google.rpc import status_pb2
from grpc_status import rpc_status

from forward.v1 import forward_pb2 as pb
from forward.v1.forward_pb2_grpc import ForwardServiceStub
from forward_client.messages import tensor_of
from server.api.forward_v1.stream import MAX_MESSAGES
from tests.support.bundles import random_images
from tests.support.servers import RunningServer, handled, metric, start_server, wait_until
from tests.support.streams import NARROW, SECONDS, Tap, settled

PATH = "/forward.v1.ForwardService/"
Response = pb.PredictStreamResponse


@pytest.fixture(scope="module")
def channel(served: RunningServer) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(served.address) as opened:
        yield opened


def request(images: np.ndarray) -> pb.PredictStreamRequest:
    return pb.PredictStreamRequest(images=tensor_of(images))


def some_images(count: int, seed: int) -> np.ndarray:
    images = random_images(count, (28, 28), seed)
    return (images * 255).astype(np.uint8) if seed % 2 else images


def answers_to(
    channel: grpc.Channel, requests: Sequence[pb.PredictStreamRequest]
) -> list[Response]:
    return list(ForwardServiceStub(channel).PredictStream(iter(requests), timeout=SECONDS))


def streams_ended(server: RunningServer, code: str) -> float:
    return handled(server, "PredictStream", code, "bidi_stream")


def test_responses_are_those_of_predict_in_order(
    served: RunningServer, channel: grpc.Channel
) -> None:
    sizes = [1, 3, 1, 300, 1, 64, 2, 512, 1, 7] * 4
    batches = [some_images(size, seed) for seed, size in enumerate(sizes)]
    before = streams_ended(served, "OK")
    found = answers_to(channel, [request(images) for images in batches])
    assert streams_ended(served, "OK") == before + 1
    predict = ForwardServiceStub(channel).Predict
    assert len(found) == len(batches)
    for images, answer in zip(batches, found, strict=True):
        alone = predict(pb.PredictRequest(images=tensor_of(images)), timeout=SECONDS)
        assert answer.WhichOneof("result") == "logits"
        assert answer.logits == alone.logits
        assert answer.model == alone.model


def test_a_stream_of_nothing_ends_well(channel: grpc.Channel) -> None:
    assert answers_to(channel, []) == []


def test_a_stream_answers_before_the_next_request(channel: grpc.Channel) -> None:
    answered = threading.Semaphore(1)
    message = request(random_images(1, (28, 28)))

    def one_by_one() -> Iterator[pb.PredictStreamRequest]:
        for _ in range(200):
            assert answered.acquire(timeout=SECONDS)
            yield message

    found = 0
    for answer in ForwardServiceStub(channel).PredictStream(one_by_one(), timeout=SECONDS):
        found += answer.HasField("logits")
        answered.release()
    assert found == 200


NAN = random_images(2, (28, 28))
NAN[1, 3, 3] = np.nan
GOOD = pb.PredictRequest(images=tensor_of(random_images(2, (28, 28))))
FAULTS = [
    pb.PredictRequest(images=tensor_of(random_images(1, (28, 27)))),
    pb.PredictRequest(images=tensor_of(NAN)),
    pb.PredictRequest(images=tensor_of(random_images(1025, (28, 28)))),
    pb.PredictRequest(images=GOOD.images, model=pb.ModelSelector(name="resnet")),
    pb.PredictRequest(),
]


def status_of_predict(channel: grpc.Channel, message: bytes) -> status_pb2.Status:
    predict: Any = channel.unary_unary(f"{PATH}Predict")
    with pytest.raises(grpc.RpcError) as refused:
        predict(message, timeout=SECONDS)
    status = rpc_status.from_call(refused.value)  # type: ignore[arg-type] # the error is the call
    assert status is not None
    return status_pb2.Status.FromString(status.SerializeToString())


def test_an_error_ends_no_stream_and_has_details(
    channel: grpc.Channel,
) -> None:
    good, unparsable = GOOD.SerializeToString(), b"\xff\xff\xff"
    faults = [*(fault.SerializeToString() for fault in FAULTS), unparsable]
    messages = [message for fault in faults for message in (good, fault)] + [good]
    stream: Any = channel.stream_stream(
        f"{PATH}PredictStream", response_deserializer=Response.FromString
    )
    found = list(stream(iter(messages), timeout=SECONDS))
    assert len(found) == len(messages)
    assert {answer.logits.data for answer in found[::2]} == {found[0].logits.data}
    assert len(found[0].logits.data) == 80
    for fault, answer in zip(faults, found[1::2], strict=True):
        assert answer.WhichOneof("result") == "error"
        expected = status_of_predict(channel, fault)
        error = status_pb2.Status.FromString(answer.error.SerializeToString())
        assert error.code == expected.code
        assert error.message.replace("PredictStreamRequest", "PredictRequest") == expected.message
        if fault != unparsable:
            assert list(error.details)[:-1] == list(expected.details)[:-1]  # but for the ids
        assert len(error.details) == len(expected.details)


@pytest.mark.parametrize("count", [1, 64])
def test_read_ahead_is_bounded_for_slow_readers(count: int) -> None:
    with start_server() as server, grpc.insecure_channel(server.address, NARROW) as channel:
        tap = Tap(request(some_images(count, 1)))
        stream = ForwardServiceStub(channel).PredictStream(iter(tap), timeout=SECONDS)
        computed = settled(lambda: metric(server, "forward_images_total", batcher="predict"))
        resident = metric(server, "process_resident_memory_bytes")
        time.sleep(1)
        assert metric(server, "forward_images_total", batcher="predict") == computed
        assert metric(server, "process_resident_memory_bytes") - resident < 2**23
        # Beside the window: what lies in gRPC's own buffers, some hundred kB of answers.
        answer_bytes = 70 + 40 * count
        assert computed / count <= MAX_MESSAGES + 2**20 / answer_bytes
        assert next(stream).HasField("logits")
        stream.cancel()
        tap.close()
        wait_until(lambda: metric(server, "forward_queue_images") == 0)


def test_a_cancelled_idle_stream_is_counted_as_cancelled(
    served: RunningServer, channel: grpc.Channel
) -> None:
    before = streams_ended(served, "CANCELLED")
    for _ in range(10):
        tap = Tap(request(some_images(1, 0)), most=2)
        stream = ForwardServiceStub(channel).PredictStream(iter(tap), timeout=SECONDS)
        assert [next(stream).HasField("logits") for _ in range(2)] == [True, True]
        stream.cancel()
        tap.close()
    wait_until(lambda: streams_ended(served, "CANCELLED") == before + 10)


@pytest.mark.parametrize("answers", [0, 1, 50])
def test_a_stream_that_is_cancelled_leaves_nothing_behind(answers: int) -> None:
    with start_server() as server, grpc.insecure_channel(server.address) as channel:
        tap = Tap(request(some_images(512, 1)))
        stream = ForwardServiceStub(channel).PredictStream(iter(tap), timeout=SECONDS)
        for _ in range(answers):
            next(stream)
        stream.cancel()
        tap.close()
        wait_until(lambda: streams_ended(server, "CANCELLED") == 1 or answers == 0)
        wait_until(lambda: metric(server, "forward_queue_images") == 0)
        started = time.monotonic()
        for images in (1, 512):
            assert answers_to(channel, [request(some_images(images, 1))])[0].HasField("logits")
        assert time.monotonic() - started < 10
        assert server.stop() == 0
        assert not [entry for entry in server.log() if entry["level"] in ("error", "critical")]


def test_a_stream_that_stays_open_ends_with_its_deadline(
    served: RunningServer, channel: grpc.Channel
) -> None:
    before = streams_ended(served, "DEADLINE_EXCEEDED")
    tap = Tap(request(some_images(1, 0)), most=5)
    stream = ForwardServiceStub(channel).PredictStream(iter(tap), timeout=1)
    found: list[Response] = []
    with pytest.raises(grpc.RpcError) as ended:
        found.extend(stream)
    tap.close()
    assert ended.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert len(found) == 5
    wait_until(lambda: streams_ended(served, "DEADLINE_EXCEEDED") == before + 1)
    wait_until(lambda: metric(served, "forward_queue_images") == 0)


@pytest.mark.parametrize("most", [3, 10**9])
def test_a_drain_answers_what_was_read_then_ends(most: int) -> None:
    with start_server() as server, grpc.insecure_channel(server.address) as channel:
        tap = Tap(request(some_images(8, 1)), most)
        stream = ForwardServiceStub(channel).PredictStream(iter(tap), timeout=SECONDS)
        found = [next(stream) for _ in range(3)]
        server.process.terminate()
        with pytest.raises(grpc.RpcError) as ended:
            found.extend(stream)
        tap.close()
        assert ended.value.code() == grpc.StatusCode.UNAVAILABLE
        assert "every request up to the last response was answered" in str(ended.value.details())
        assert server.process.wait(30) == 0
        assert {answer.logits.data for answer in found} == {found[0].logits.data}
        assert len(found) <= tap.taken
        if most == 3:
            assert len(found) == 3


def test_concurrent_streams_and_calls_get_their_own_responses(
    served: RunningServer, channel: grpc.Channel
) -> None:
    def stream(seed: int) -> None:
        batches = [some_images(1 + (seed + turn) % 5, seed * 100 + turn) for turn in range(60)]
        found = answers_to(channel, [request(images) for images in batches])
        predict = ForwardServiceStub(channel).Predict
        for images, answer in zip(batches, found, strict=True):
            alone = predict(pb.PredictRequest(images=tensor_of(images)), timeout=SECONDS)
            assert answer.logits == alone.logits

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(stream, range(8)))
    wait_until(lambda: metric(served, "forward_queue_images") == 0)
