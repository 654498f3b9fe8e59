"""forward.v1 over HTTP: the Connect protocol and gRPC-Web, beside the same calls over gRPC."""

import base64
import json
import subprocess
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from connectrpc.code import Code
from connectrpc.errors import ConnectError
from connectrpc.protocol import ProtocolType
from google.protobuf import json_format
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from pyqwest import HTTPVersion

from export.bundle import Bundle
from forward.v1 import forward_pb2 as pb
from forward.v1.forward_pb2_grpc import ForwardServiceStub
from tests.support.bundles import random_images
from tests.support.http import SERVICE, ConnectCaller, connect_caller, post, request
from tests.support.servers import RunningServer, start_held_server

pytestmark = pytest.mark.one_transport

IMAGES = random_images(3, (28, 28), seed=16)
TIMES = ("queue_seconds", "run_seconds")


def tensor(images: np.ndarray = IMAGES) -> pb.Tensor:
    data = images.astype("<f4").tobytes()
    return pb.Tensor(dtype=pb.DATA_TYPE_FLOAT32, shape=images.shape, data=data)


REQUESTS: dict[str, Message] = {
    "Predict": pb.PredictRequest(images=tensor()),
    "Trace": pb.TraceRequest(
        images=tensor(),
        detail=pb.DETAIL_FULL,
        interventions=[pb.Intervention(stage="relu", units=[3, 5], zero=True)],
        unchanged_logits=True,
        certify=True,
    ),
    "Attribute": pb.AttributeRequest(images=tensor(), stage="relu"),
    "Compare": pb.CompareRequest(images=tensor(), runtimes=["numpy", "onnx"]),
    "GetTrainingHistory": pb.GetTrainingHistoryRequest(),
    "GetParameters": pb.GetParametersRequest(epoch=3, stages=["linear2"]),
    "GetModel": pb.GetModelRequest(),
}
CLIENTS = [
    ("json", ProtocolType.CONNECT, HTTPVersion.HTTP1),
    ("proto", ProtocolType.CONNECT, HTTPVersion.HTTP2),
    ("proto", ProtocolType.GRPC_WEB, HTTPVersion.HTTP1),
    ("proto", ProtocolType.GRPC_WEB, HTTPVersion.HTTP2),
]
CLIENT_NAMES = ["Connect JSON 1.1", "Connect 2", "gRPC-Web 1.1", "gRPC-Web 2"]


@pytest.fixture(scope="module", params=CLIENTS, ids=CLIENT_NAMES)
def caller(request: pytest.FixtureRequest, served: RunningServer) -> Iterator[ConnectCaller]:
    codec, protocol, version = request.param
    url = f"http://{served.http_address}"
    with connect_caller(url, codec=codec, protocol=protocol, version=version) as connected:
        yield connected


@pytest.fixture(scope="module")
def stub(served: RunningServer) -> Iterator[Any]:
    with grpc.insecure_channel(served.address) as channel:
        yield ForwardServiceStub(channel)


def without_times(response: Message) -> Message:
    for name in TIMES:
        if name in response.DESCRIPTOR.fields_by_name:
            response.ClearField(name)
    return response


@pytest.mark.parametrize("method", REQUESTS)
def test_a_method_responds_as_over_grpc(method: str, caller: ConnectCaller, stub: Any) -> None:  # noqa: ANN401 (generated)
    expected = getattr(stub, method)(REQUESTS[method], timeout=60)
    assert without_times(caller.call(method, REQUESTS[method])) == without_times(expected)


def test_every_method_is_tried() -> None:
    assert {*REQUESTS, "PredictStream"} == set(SERVICE.methods_by_name)


def test_a_stream_answers_each_message_and_goes_on(caller: ConnectCaller, stub: Any) -> None:  # noqa: ANN401 (generated)
    wrong = tensor(np.full((28, 28), 255.0))
    messages = [pb.PredictStreamRequest(images=images) for images in (tensor(), wrong, tensor())]
    received = caller.stream("PredictStream", messages)
    over_grpc = list(stub.PredictStream(iter(messages), timeout=60))
    for each in (received[1], over_grpc[1]):
        assert each.error.details.pop().Is(error_details_pb2.RequestInfo.DESCRIPTOR)
    assert received == over_grpc
    assert [each.WhichOneof("result") for each in received] == ["logits", "error", "logits"]


WRONG: list[tuple[str, Message, Code, str]] = [
    ("Predict", pb.PredictRequest(), Code.INVALID_ARGUMENT, "images: required, but not set"),
    (
        "Predict",
        pb.PredictRequest(images=tensor(), model=pb.ModelSelector(name="no")),
        Code.NOT_FOUND,
        "this server has 'mnist' version 1",
    ),
    (
        "Trace",
        pb.TraceRequest(images=tensor(), stages=[pb.StageSelection(name="no")]),
        Code.INVALID_ARGUMENT,
        "stages[0].name",
    ),
]


@pytest.mark.parametrize("wrong", WRONG, ids=["none", "model", "stage"])
def test_an_error_has_the_status_text_and_details_of_grpc(
    wrong: tuple[str, Message, Code, str],
    caller: ConnectCaller,
    stub: Any,  # noqa: ANN401 (generated)
) -> None:
    method, message, code, text = wrong
    with pytest.raises(grpc.RpcError) as over_grpc:
        getattr(stub, method)(message, timeout=60)
    with pytest.raises(ConnectError) as refused:
        caller.call(method, message)
    assert refused.value.code is code
    assert refused.value.message == over_grpc.value.details()
    assert text in refused.value.message
    details = [
        error_details_pb2.BadRequest.FromString(each.message_bytes)
        for each in refused.value.details
        if each.type_name == "google.rpc.BadRequest"
    ]
    assert bool(details) == (code is Code.INVALID_ARGUMENT)
    assert all(each.field_violations for each in details)


def test_a_full_queue_says_when_to_come_again(bundle: Bundle) -> None:
    with start_held_server(bundle, max_queue_images=4) as held:
        message = {"images": json_format.MessageToDict(tensor(np.zeros((5, 28, 28))))}
        refused = post(held.http_address, "Predict", message)
    assert refused.status == 429
    assert int(refused.headers["retry-after"]) >= 1
    body = refused.json()
    assert body["code"] == "resource_exhausted"
    kinds = ["google.rpc.RetryInfo", "google.rpc.RequestInfo"]
    assert [each["type"] for each in body["details"]] == kinds


def test_a_deadline_passes_while_the_call_waits(bundle: Bundle) -> None:
    with start_held_server(bundle) as held, connect_caller(f"http://{held.http_address}") as caller:
        with pytest.raises(ConnectError) as late:
            caller.call("Predict", REQUESTS["Predict"], timeout_ms=300)
        assert late.value.code is Code.DEADLINE_EXCEEDED
        assert held.runner.started.acquire(timeout=10)


def test_an_unexpected_failure_tells_no_cause(bundle: Bundle) -> None:
    with start_held_server(bundle) as held:
        failed = post(held.http_address, "Trace", {"images": json_format.MessageToDict(tensor())})
    assert (failed.status, failed.json()["code"]) == (500, "internal")
    assert "secret" not in failed.body.decode()
    assert "the server's log has the cause under request" in failed.json()["message"]


def test_curl_needs_no_header(served: RunningServer) -> None:
    pixels = base64.b64encode(bytes(784)).decode()
    message = {"images": {"dtype": "DATA_TYPE_UINT8", "shape": [28, 28], "data": pixels}}
    url = f"http://{served.http_address}/{SERVICE.full_name}/Trace"
    command = ["curl", "--silent", "--data", json.dumps(message), url]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert [stage["name"] for stage in json.loads(done.stdout)["stages"]][-1] == "output"


def test_a_form_of_another_page_is_not_taken_as_json(served: RunningServer) -> None:
    form = "application/x-www-form-urlencoded"
    taken = post(served.http_address, "GetModel", {}, content_type=form)
    refused = post(
        served.http_address, "GetModel", {}, content_type=form, origin="http://other.example"
    )
    assert (taken.status, refused.status) == (200, 415)


@pytest.mark.parametrize("content_type", ["text/plain", "application/grpc", "application/xml", ""])
def test_another_content_type_is_refused_by_name(content_type: str, served: RunningServer) -> None:
    refused = post(served.http_address, "Predict", {}, content_type=content_type)
    assert refused.status == 415
    text = refused.json()["message"]
    got = repr(content_type) if content_type else "none"
    assert f"expected Content-Type application/json or application/proto, got {got}" in text
    assert "application/proto" in refused.headers["accept-post"]


def nested(depth: int) -> bytes:
    return b'{"images":' * depth + b"{}" + b"}" * depth


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "expected a forward.v1.TraceRequest in JSON"),
        (b"{", "expected a forward.v1.TraceRequest in JSON"),
        (b"\xff", "expected a forward.v1.TraceRequest in JSON"),
        (b"[]", "expected a forward.v1.TraceRequest in JSON"),
        (nested(5_000), "expected a forward.v1.TraceRequest in JSON"),
        (b'{"topKCount":' + b"9" * 5_000 + b"}", "expected a forward.v1.TraceRequest in JSON"),
        (b'{"imgs": {}}', 'no field named "imgs"'),
        (b'{"images": {"dtype": "FLOAT32"}}', "FLOAT32"),
    ],
    ids=["empty", "cut", "no UTF-8", "array", "deep", "long", "unknown", "enum"],
)
def test_a_body_that_is_no_request_is_explained(
    body: bytes, text: str, served: RunningServer
) -> None:
    refused = post(served.http_address, "Trace", body)
    assert (refused.status, refused.json()["code"]) == (400, "invalid_argument"), refused.body
    assert text in refused.json()["message"]
    assert len(refused.body) < 2_000


def test_bytes_that_are_no_message_are_refused(served: RunningServer) -> None:
    refused = post(served.http_address, "Predict", b"\xff", content_type="application/proto")
    assert refused.status == 400
    assert "expected a forward.v1.PredictRequest, got other bytes" in refused.json()["message"]


def test_a_method_that_is_not_there_is_named(served: RunningServer) -> None:
    missing = post(served.http_address, "Nothing", {})
    assert (missing.status, missing.json()["code"]) == (404, "unimplemented")
    assert "Nothing" in missing.json()["message"]
    wrong = request(served.http_address, f"/{SERVICE.full_name}/Predict")
    assert (wrong.status, wrong.headers["allow"]) == (405, "POST")
