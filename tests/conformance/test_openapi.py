"""The OpenAPI document: valid, and what a real server answers to anything that it allows."""

import json
import re
from typing import Any

import hypothesis
import pytest
import schemathesis
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi import checks

from server.api.open_inference.openapi import document
from tests.support.http import request
from tests.support.servers import RunningServer

pytestmark = pytest.mark.one_transport

API = schemathesis.openapi.from_dict(document("0"))
OPERATIONS = {
    found.ok().label: found.ok() for found in API.get_all_operations() if isinstance(found, Ok)
}
CHECKS = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
]
WRONG = re.compile(r"POST|\{version\}")
EXAMPLES = 12  # of each operation and mode
ZEROS = {"name": "images", "datatype": "UINT8", "shape": [1, 28, 28], "data": [0] * 784}
BODIES: list[dict[str, Any]] = [
    {"inputs": [ZEROS]},
    {"inputs": [ZEROS], "id": "7", "parameters": {"binary_data_output": True}},
    {"inputs": [ZEROS], "outputs": [{"name": "logits", "parameters": {"classification": 3}}]},
]


def test_the_document_is_valid_openapi() -> None:
    assert API.specification.version == "3.1.0"
    API.validate()
    assert len(OPERATIONS) == 15


def test_the_document_is_served_as_it_is(served: RunningServer) -> None:
    found = request(served.http_address, "/v2/openapi.json").json()
    assert found == document(found["info"]["version"])


@pytest.mark.parametrize(
    ("label", "mode"),
    [
        *((label, GenerationMode.POSITIVE) for label in OPERATIONS),
        # Any text may be a model's name: other paths can't be asked for wrongly.
        *((label, GenerationMode.NEGATIVE) for label in OPERATIONS if WRONG.search(label)),
    ],
)
def test_responses_are_as_the_document_says(
    served: RunningServer, label: str, mode: GenerationMode
) -> None:
    operation = OPERATIONS[label]
    names = st.sampled_from(["mnist", "mnist_trace", None])

    @hypothesis.settings(max_examples=EXAMPLES, derandomize=True, deadline=None, database=None)
    @hypothesis.given(operation.as_strategy(generation_mode=mode), names)
    def answer(case: Any, name: str | None) -> None:  # noqa: ANN401 (made by schemathesis)
        if name and "model" in case.path_parameters:
            case.path_parameters["model"] = name
        url = f"http://{served.http_address}"
        response = case.call(base_url=url, timeout=60)
        case.validate_response(response, checks=CHECKS)

    answer()


@pytest.mark.parametrize("body", BODIES, ids=["JSON", "binary", "classes"])
@pytest.mark.parametrize("name", ["mnist", "mnist_trace"])
def test_a_right_request_gets_a_response_of_the_document(
    served: RunningServer, name: str, body: dict[str, Any]
) -> None:
    operation = OPERATIONS["POST /v2/models/{model}/infer"]
    case = operation.Case(
        path_parameters={"model": name},
        body=json.loads(json.dumps(body)),
        media_type="application/json",
    )
    response = case.call(base_url=f"http://{served.http_address}", timeout=60)
    assert response.status_code == 200
    case.validate_response(response, checks=CHECKS)
