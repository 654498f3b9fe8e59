"""Both transports answer the same: a short run of `make fuzz ARGS=--differential`."""

import asyncio
from collections.abc import Callable

import pytest

from tests.fuzz.differential import compare
from tests.fuzz.run import seeds
from tests.support.servers import RunningServer
from tests.support.transports import extension

pytestmark = pytest.mark.skipif(not extension()[0], reason=extension()[1])
LANE = ("Predict", "PredictStream", "ModelInfer")


def test_both_transports_answer_the_same_to_the_byte(
    served_by: Callable[[str], RunningServer],
) -> None:
    servers = [served_by("python"), served_by("native")]
    methods = seeds().keys() - {"Compare"}  # the first comparison takes seconds
    compared = asyncio.run(compare(servers, 1, 1200, sorted(methods)))
    assert compared.findings.wrong == []
    statuses = compared.findings.statuses
    for method in methods:
        assert statuses[method, "OK"] > 5, "too few inputs stay valid to say anything"
        assert statuses[method, "INVALID_ARGUMENT"] > 5
    assert all(compared.lane[method] for method in LANE), compared.lane
    for server in servers:
        assert [entry for entry in server.log() if entry["level"] == "error"] == []
