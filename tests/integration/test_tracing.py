"""Distributed tracing: what a real receiver of OpenTelemetry's protocol gets of real calls."""

import asyncio
import json
import os
import time
import urllib.request
from collections.abc import Iterator
from typing import Any, get_args

import pytest
import structlog
from prometheus_client.openmetrics import exposition, parser

from export.bundle import Bundle
from forward_client import ForwardClient, ForwardError
from server.observability.tracing import open_tracing
from tests.support.callers import caller, client_of
from tests.support.http import request
from tests.support.otlp import Protocol, Receiver, receive_spans
from tests.support.servers import RunningServer, start_held_server, start_server, wait_until
from tests.support.traced import (
    CALLER,
    IMAGES,
    CallMethod,
    check_shared_runs,
    check_that_the_caller_decides,
    sampling,
)

FORWARD, INFERENCE = "forward.v1.ForwardService", "inference.GRPCInferenceService"
TRACE = f"{FORWARD}/Trace"
PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)
ROUNDING = 2e-9  # seconds: the times of spans are whole nanoseconds
BLACK = [0] * 784
INFER = {"inputs": [{"name": "images", "datatype": "UINT8", "shape": [1, 28, 28], "data": BLACK}]}
PREDICT = {"images": {"dtype": "DATA_TYPE_UINT8", "shape": [28, 28], "data": "A" * 1045 + "A=="}}


@pytest.fixture(scope="module")
def receiver(transport: str) -> Iterator[Receiver]:
    """What gets the spans of the servers with a transport alone."""
    assert transport
    with receive_spans("grpc") as opened:
        yield opened


@pytest.fixture(scope="module")
def traced(receiver: Receiver, transport: str) -> Iterator[RunningServer]:
    """A server that sends its spans."""
    arguments = ("--http-port", "0", "--transport", transport)
    with start_server(*arguments, **receiver.environment) as server:
        yield server


@pytest.fixture
def client(traced: RunningServer) -> Iterator[ForwardClient]:
    with ForwardClient(traced.address, timeout_seconds=60) as connected:
        yield connected


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_call_of_the_client_is_one_tree(protocol: Protocol, transport: str) -> None:
    with (
        receive_spans(protocol) as receiver,
        start_server("--transport", transport, **receiver.environment) as server,
        ForwardClient(server.address, timeout_seconds=60) as client,
    ):
        before = time.time_ns()
        with caller() as span:
            trace = client.trace(IMAGES, ["relu"])
        after = time.time_ns()
        call = receiver.of_call(span, TRACE)
        phases = receiver.phases(call)
        (batch,) = receiver.batches(call)
        assert before <= call.started <= call.ended <= after
        assert phases["queue"].seconds == pytest.approx(trace.queue_seconds, abs=ROUNDING)
        assert phases["compute"].seconds == pytest.approx(trace.run_seconds, abs=ROUNDING)
        assert batch.links == {call.link}
        assert phases["compute"].links == {batch.link}
        assert (batch.parent_id, batch.kind) == ("", "INTERNAL")
        assert batch.trace_id != call.trace_id
        assert server.stop() == 0
        assert len(receiver.spans) == len({each.span_id for each in receiver.spans}) == 5


def test_a_span_says_what_the_call_was(traced: RunningServer, receiver: Receiver) -> None:
    with client_of(traced, x_request_id="what-it-was") as client:
        client.trace(IMAGES)
    (call,) = receiver.wait_for(TRACE, forward__request_id="what-it-was")
    peer = str(call.attributes.pop("network.peer.address"))
    assert "127.0.0.1" in peer
    assert call.attributes == {
        "rpc.system": "grpc",
        "rpc.service": FORWARD,
        "rpc.method": "Trace",
        "rpc.grpc.status_code": 0,
        "forward.request_id": "what-it-was",
        "forward.images": len(IMAGES),
        "forward.model.name": "mnist",
        "forward.model.version": 1,
    }
    assert (call.parent_id, call.is_error) == ("", False)
    assert call.resource["service.name"] == "forward-server"
    (batch,) = receiver.batches(call)
    assert batch.attributes == {
        "forward.batcher": "trace",
        "forward.batch.requests": 1,
        "forward.batch.images": len(IMAGES),
    }


@pytest.mark.parametrize(
    ("method", "call"),
    [
        ("Trace", lambda client: client.trace(IMAGES, certify=True)),
        ("Attribute", lambda client: client.attribute(IMAGES, stage="relu")),
    ],
)
def test_what_was_computed_has_its_phases(
    method: str, call: CallMethod, client: ForwardClient, receiver: Receiver
) -> None:
    with caller() as span:
        call(client)
    receiver.phases(receiver.of_call(span, f"{FORWARD}/{method}"))


@pytest.mark.parametrize(
    ("method", "call"),
    [
        ("Compare", lambda client: client.compare(IMAGES, ["numpy"])),
        ("GetModel", lambda client: client.model()),
    ],
)
def test_any_other_call_is_one_span(
    method: str, call: CallMethod, client: ForwardClient, receiver: Receiver
) -> None:
    with caller() as span:
        call(client)
    with caller() as later:
        client.trace(IMAGES)
    receiver.phases(receiver.of_call(later, TRACE))  # what was sent before has come
    assert receiver.children(receiver.of_call(span, f"{FORWARD}/{method}")) == {}


@pytest.mark.parametrize(
    ("path", "body", "method"),
    [
        (f"/{FORWARD}/Predict", PREDICT, f"{FORWARD}/Predict"),
        ("/v2/models/mnist/infer", INFER, f"{INFERENCE}/ModelInfer"),
        ("/v2/models/mnist_trace/infer", INFER, f"{INFERENCE}/ModelInfer"),
    ],
)
def test_a_call_over_http_is_one_tree(
    path: str, body: dict[str, Any], method: str, traced: RunningServer, receiver: Receiver
) -> None:
    with caller() as span:
        headers = {"content_type": "application/json", "traceparent": str(span)}
    answer = request(traced.http_address, path, json.dumps(body).encode(), **headers)
    assert answer.status == 200, answer.body
    call = receiver.of_call(span, method)
    assert (call.attributes["rpc.system"], call.attributes["forward.images"]) == ("http", 1)
    phases = receiver.phases(call)
    (batch,) = receiver.batches(call)
    assert phases["compute"].links == {batch.link}


def test_the_span_of_a_run_links_to_all_its_calls(
    traced: RunningServer, receiver: Receiver
) -> None:
    check_shared_runs(traced, receiver, TRACE, lambda client: client.trace(IMAGES))


def test_a_failed_call_has_its_status(traced: RunningServer, receiver: Receiver) -> None:
    with client_of(traced, x_request_id="no-images") as client, pytest.raises(ForwardError):
        client.trace(IMAGES[:0])
    (refused,) = receiver.wait_for(TRACE, forward__request_id="no-images")
    assert (refused.attributes["rpc.grpc.status_code"], refused.is_error) == (3, False)
    assert receiver.children(refused) == {}


@pytest.mark.parametrize("header", ["00-0", f"ff{str(CALLER)[2:]}", ""])
def test_a_wrong_traceparent_begins_a_trace(
    header: str, traced: RunningServer, receiver: Receiver
) -> None:
    name = f"wrong-{len(header)}"
    with client_of(traced, traceparent=header, x_request_id=name) as client:
        client.trace(IMAGES)
    (call,) = receiver.wait_for(TRACE, forward__request_id=name)
    assert call.parent_id == ""
    assert call.trace_id != CALLER.trace_id


def test_who_calls_decides_if_a_call_is_traced(traced: RunningServer, receiver: Receiver) -> None:
    check_that_the_caller_decides(traced, receiver, TRACE, lambda client: client.trace(IMAGES))


def test_the_sampler_decides_without_a_caller(transport: str) -> None:
    with sampling(transport, "0") as (server, receiver):
        with client_of(server) as client:
            client.trace(IMAGES)
        with client_of(server, traceparent=str(CALLER)) as client:
            client.trace(IMAGES)
        assert server.stop() == 0
    assert {each.trace_id for each in receiver.named(TRACE)} == {CALLER.trace_id}
    assert len(receiver.named("batch")) == 1


def test_a_call_without_a_caller_has_its_exemplar(
    traced: RunningServer, receiver: Receiver
) -> None:
    with client_of(traced, x_request_id="alone") as client:
        client.trace(IMAGES)
    (call,) = receiver.wait_for(TRACE, forward__request_id="alone")
    accept = "application/openmetrics-text; version=1.0.0"
    asked = urllib.request.Request(traced.metrics_url, headers={"accept": accept})  # noqa: S310 (see below)
    with urllib.request.urlopen(asked, timeout=30) as response:  # noqa: S310 (the test's own server)
        assert call.trace_id in exemplars_of(response.read().decode())


def exemplars_of(text: str) -> list[str]:
    """Return the traces that metrics name."""
    parse: Any = parser.text_string_to_metric_families  # it has no types
    return [
        sample.exemplar.labels["trace_id"]
        for family in parse(text)
        for sample in family.samples
        if sample.exemplar
    ]


def test_one_id_leads_from_the_error_to_log_span_and_exemplar(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    with receive_spans("grpc") as receiver, start_held_server(bundle) as server:
        for name, value in receiver.environment.items():
            monkeypatch.setenv(name, value)
        tracer = open_tracing(os.environ)
        assert tracer
        server.observer.trace_calls(tracer)
        with structlog.testing.capture_logs() as lines:
            with (
                client_of(server, x_request_id="one-of-many") as client,
                caller() as span,
                pytest.raises(ForwardError) as failed,
            ):
                client.trace(IMAGES)  # the runtime fails
            wait_until(lambda: any(line["event"] == "call" for line in lines))
        call = receiver.of_call(span, TRACE)
        asyncio.run(tracer.close())
        generate: Any = exposition.generate_latest  # it has no types
        text = generate(server.metrics.registry).decode()
    assert (failed.value.code, failed.value.request_id) == ("INTERNAL", "one-of-many")
    assert "under request one-of-many" in str(failed.value)
    logged = [line for line in lines if line.get("request_id") == "one-of-many"]
    assert [line["event"] for line in logged] == ["call failed", "call"]
    assert logged[1]["trace_id"] == span.trace_id
    assert call.attributes["forward.request_id"] == "one-of-many"
    assert (call.attributes["rpc.grpc.status_code"], call.attributes["error.type"]) == (
        13,
        "INTERNAL",
    )
    assert call.is_error
    assert exemplars_of(text) == [span.trace_id]
