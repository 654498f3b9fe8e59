"""Tracing of Predict and PredictStream, which the native transport answers in its lane."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from forward_client import ForwardClient
from server.observability.traceparent import TraceParent
from tests.support.bundles import random_images
from tests.support.callers import caller, client_of
from tests.support.otlp import Receiver, receive_spans
from tests.support.servers import RunningServer, start_server

IMAGES = random_images(3, (28, 28), seed=18)
PREDICT, STREAM = "forward.v1.ForwardService/Predict", "forward.v1.ForwardService/PredictStream"
CALLER = TraceParent("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", is_sampled=True)


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


def test_the_runs_of_a_stream_link_to_it_but_in_the_lane(
    client: ForwardClient, receiver: Receiver, transport: str
) -> None:
    with caller() as span:
        list(client.predict_stream([IMAGES] * 9))
    with caller() as later:
        client.predict(IMAGES)
    receiver.batches(receiver.of_call(later, PREDICT))  # what was sent before has come
    stream = receiver.of_call(span, STREAM)
    batches = [each for each in receiver.named("batch") if stream.link in each.links]
    requests = sum(int(each.attributes["forward.batch.requests"]) for each in batches)
    assert requests == (0 if transport == "native" else 9)
    assert all(stream.started <= each.started <= each.ended <= stream.ended for each in batches)


def test_the_span_of_a_run_links_to_all_its_calls(
    traced: RunningServer, receiver: Receiver
) -> None:
    count = 300
    with client_of(traced, x_request_id="together") as client, ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: client.predict(IMAGES), range(count)))
    calls = receiver.wait_for(PREDICT, count, forward__request_id="together")
    batches = receiver.batches(*calls)
    assert sum(len(each.links) for each in batches) == count  # each call is in one run
    assert max(len(each.links) for each in batches) > 1
    for each in batches:
        assert each.attributes["forward.batch.requests"] == len(each.links)
        assert each.attributes["forward.batch.images"] == len(each.links) * len(IMAGES)
    for call in calls:
        (batch,) = [each for each in batches if call.link in each.links]
        assert receiver.phases(call)["compute"].links == {batch.link}


def test_who_calls_decides_if_predict_is_traced(traced: RunningServer, receiver: Receiver) -> None:
    parents = {"not-recorded": CALLER._replace(is_sampled=False), "recorded": CALLER}
    for name, parent in parents.items():
        with client_of(traced, traceparent=str(parent), x_request_id=name) as client:
            client.predict(IMAGES)
    receiver.wait_for(PREDICT, forward__request_id="recorded")
    traced_ids = {each.attributes.get("forward.request_id") for each in receiver.spans}
    assert "not-recorded" not in traced_ids


def test_a_share_of_the_calls_without_a_caller_is_traced(transport: str) -> None:
    count = 400
    sampler = {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.5"}
    with (
        receive_spans("grpc") as receiver,
        start_server("--transport", transport, **receiver.environment, **sampler) as server,
    ):
        with ForwardClient(server.address, timeout_seconds=60) as client:
            for _ in range(count):
                client.predict(IMAGES)
        assert server.stop() == 0
    assert 0.3 * count < len(receiver.named(PREDICT)) < 0.7 * count  # 8 standard deviations
    assert len(receiver.named("batch")) == len(receiver.named(PREDICT))
