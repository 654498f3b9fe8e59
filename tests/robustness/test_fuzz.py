"""Any bytes at all: a short run of what `make fuzz` does at length."""

import asyncio

from export.bundle import Bundle
from export.runtimes import open_runner
from tests.fuzz.http import fuzz_http
from tests.fuzz.judgement import PredictJudge
from tests.fuzz.mutations import Mutator
from tests.fuzz.run import fuzz, seeds
from tests.support.http import request
from tests.support.servers import RunningServer


def test_mutated_requests_are_answered_as_numpy_and_protobuf_do(
    served: RunningServer, bundle: Bundle
) -> None:
    judge = PredictJudge(open_runner(bundle, "onnx", "cpu"), "mnist", 1)
    findings = asyncio.run(fuzz(served.address, 1, 4500, judge))
    assert findings.wrong == []
    assert findings.inputs == 4500
    for method in seeds():
        assert findings.statuses[method, "OK"] > 20, "too few inputs stay valid to say anything"
        assert findings.statuses[method, "INVALID_ARGUMENT"] > 20
    assert [entry for entry in served.log() if entry["level"] == "error"] == []


def test_bytes_at_the_http_port_are_answered_or_the_connection_closed(
    served: RunningServer,
) -> None:
    findings = asyncio.run(fuzz_http(served.http_address, 1, 800))
    assert findings.wrong == []
    assert findings.inputs == 800
    for kind in ("GET", "infer", "Connect"):
        assert findings.statuses[kind, "200"] > 10, "too few inputs stay valid to say anything"
        assert findings.statuses[kind, "400"] > 10
    assert [entry for entry in served.log() if entry["level"] == "error"] == []
    assert request(served.http_address, "/v2/models/mnist/ready").status == 200


def test_a_seed_reproduces_its_inputs() -> None:
    valid = seeds()["Predict"]
    one, same, other = (Mutator(number, valid) for number in (1, 1, 2))
    first = [one.next() for _ in range(100)]
    assert first == [same.next() for _ in range(100)]
    assert first != [other.next() for _ in range(100)]
    assert len(set(first)) > 80


def test_headers_in_other_bytes_than_utf8_are_refused(served: RunningServer) -> None:
    path = "/forward.v1.ForwardService/GetModel"
    json_type = "application/json"
    answer = request(served.http_address, path, b"{}", content_type=json_type, x_a="\xff")
    assert answer.status == 400
    assert "expected headers in UTF-8, got 'x-a'" in answer.json()["message"]
