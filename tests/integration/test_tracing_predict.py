"""Tracing of Predict and PredictStream, which the native transport answers in its lane."""

from collections.abc import Iterator

import pytest

from forward_client import ForwardClient
from tests.support.callers import caller
from tests.support.otlp import Receiver, receive_spans
from tests.support.servers import RunningServer, start_server
from tests.support.traced import (
    IMAGES,
    check_shared_runs,
    check_that_the_caller_decides,
    sampling,
)

PREDICT, STREAM = "forward.v1.ForwardService/Predict", "forward.v1.ForwardService/PredictStream"


@pytest.fixture(scope="module")
def receiver(transport: str) -> Iterator[Receiver]:
    """What gets the spans of the servers with a transport alone."""
    assert transport
    with receive_spans("grpc") as opened:
        yield opened


@pytest.fixture(scope="module")
def traced(receiver: Receiver, transport: str) -> Iterator[RunningServer]:
    """A server that sends its spans."""
    with start_server("--transport", transport, **receiver.environment) as server:
        yield server


@pytest.fixture
def client(traced: RunningServer) -> Iterator[ForwardClient]:
    with ForwardClient(traced.address, timeout_seconds=60) as connected:
        yield connected


def test_predict_is_one_tree(client: ForwardClient, receiver: Receiver) -> None:
    with caller() as span:
        client.predict(IMAGES)
    call = receiver.of_call(span, PREDICT)
    assert call.attributes["forward.images"] == len(IMAGES)
    receiver.phases(call)


def test_a_stream_is_one_span(client: ForwardClient, receiver: Receiver) -> None:
    with caller() as span:
        list(client.predict_stream([IMAGES] * 9))
    with caller() as later:
        client.trace(IMAGES)
    receiver.phases(receiver.of_call(later, "forward.v1.ForwardService/Trace"))  # all has come
    stream = receiver.of_call(span, STREAM)
    assert stream.attributes["forward.images"] == 9 * len(IMAGES)
    assert receiver.children(stream) == {}


def test_the_runs_of_a_stream_link_to_it(client: ForwardClient, receiver: Receiver) -> None:
    with caller() as span:
        list(client.predict_stream([IMAGES] * 9))
    with caller() as later:
        client.predict(IMAGES)
    receiver.batches(receiver.of_call(later, PREDICT))  # what was sent before has come
    stream = receiver.of_call(span, STREAM)
    batches = [each for each in receiver.named("batch") if stream.link in each.links]
    assert sum(int(each.attributes["forward.batch.requests"]) for each in batches) == 9
    images = sum(int(each.attributes["forward.batch.images"]) for each in batches)
    assert images == 9 * len(IMAGES)
    assert all(stream.started <= each.started <= each.ended <= stream.ended for each in batches)


def test_the_span_of_a_run_links_to_all_its_calls(
    traced: RunningServer, receiver: Receiver
) -> None:
    calls, batches = check_shared_runs(
        traced, receiver, PREDICT, lambda client: client.predict(IMAGES)
    )
    for call in calls:
        (batch,) = [each for each in batches if call.link in each.links]
        assert receiver.phases(call)["compute"].links == {batch.link}


def test_who_calls_decides_if_predict_is_traced(traced: RunningServer, receiver: Receiver) -> None:
    check_that_the_caller_decides(traced, receiver, PREDICT, lambda client: client.predict(IMAGES))


def test_a_share_of_the_calls_without_a_caller_is_traced(transport: str) -> None:
    count = 400
    with sampling(transport, "0.5") as (server, receiver):
        with ForwardClient(server.address, timeout_seconds=60) as client:
            for _ in range(count):
                client.predict(IMAGES)
        assert server.stop() == 0
    assert 0.3 * count < len(receiver.named(PREDICT)) < 0.7 * count  # 8 standard deviations
    assert len(receiver.named("batch")) == len(receiver.named(PREDICT))
