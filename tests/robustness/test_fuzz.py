"""Any bytes at all: a short run of what `make fuzz` does at length."""

import asyncio

from export.bundle import Bundle
from export.runtimes import open_runner
from tests.fuzz.judgement import PredictJudge
from tests.fuzz.mutations import Mutator
from tests.fuzz.run import fuzz, seeds
from tests.support.servers import RunningServer


def test_mutated_requests_are_answered_as_numpy_and_protobuf_do(
    served: RunningServer, bundle: Bundle
) -> None:
    judge = PredictJudge(open_runner(bundle, "onnx", "cpu"), "mnist", 1)
    findings = asyncio.run(fuzz(served.address, 1, 4200, judge))
    assert findings.wrong == []
    assert findings.inputs == 4200
    for method in seeds():
        assert findings.statuses[method, "OK"] > 20, "too few inputs stay valid to say anything"
        assert findings.statuses[method, "INVALID_ARGUMENT"] > 20
    assert [entry for entry in served.log() if entry["level"] == "error"] == []


def test_a_seed_reproduces_its_inputs() -> None:
    valid = seeds()["Predict"]
    one, same, other = (Mutator(number, valid) for number in (1, 1, 2))
    first = [one.next() for _ in range(100)]
    assert first == [same.next() for _ in range(100)]
    assert first != [other.next() for _ in range(100)]
    assert len(set(first)) > 80
