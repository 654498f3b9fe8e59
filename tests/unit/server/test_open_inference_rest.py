"""Bodies of REST: the request that a body says, or every violation; and responses as bodies."""

import json
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference import open_inference_pb2 as oip
from server import errors
from server.api.open_inference.requests import TEXT_VALUE_BYTES, RestRequest
from server.api.open_inference.rest import index_request, infer_request
from server.api.open_inference.rest_responses import infer_body
from server.errors import InvalidArgumentError
from server.transport.http.errors import HTTP_STATUS

TYPES = {"FP32": "<f4", "UINT8": "u1"}
PIXELS = st.integers(0, 255)
FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)


def read(document: object, *, binary: bytes = b"", has_header: bool = False) -> RestRequest:
    text = document if isinstance(document, bytes) else json.dumps(document).encode()
    json_bytes = len(text) if binary or has_header else None
    return infer_request("mnist", "1", text + binary, json_bytes)


def refused(document: object, **options: Any) -> str:  # noqa: ANN401 (of read)
    with pytest.raises(InvalidArgumentError) as caught:
        read(document, **options)
    return str(caught.value)


def tensor(**fields: object) -> dict[str, object]:
    return {"name": "images", "datatype": "UINT8", "shape": [1, 2], **fields}


def one(**fields: object) -> dict[str, object]:
    return {"inputs": [tensor(**fields)]}


@st.composite
def nested(draw: st.DrawFn) -> tuple[str, list[int], list[Any], Any]:
    """A datatype, a shape, elements, and those nested as the shape says or flat."""
    datatype = draw(st.sampled_from(list(TYPES)))
    shape = draw(st.lists(st.integers(1, 3), min_size=1, max_size=4))
    elements: st.SearchStrategy[Any] = PIXELS if datatype == "UINT8" else FLOATS | PIXELS
    count = int(np.prod(shape))
    values = draw(st.lists(elements, min_size=count, max_size=count))
    data: Any = values
    if draw(st.booleans()):
        for size in reversed(shape[1:]):
            data = [data[at : at + size] for at in range(0, len(data), size)]
    return datatype, shape, values, data


@given(nested())
def test_numbers_flat_or_nested_are_the_tensor(case: tuple[str, list[int], list[Any], Any]) -> None:
    datatype, shape, values, data = case
    request = read({"inputs": [{"name": "x", "datatype": datatype, "shape": shape, "data": data}]})
    (found,) = request.inputs
    assert (found.name, found.datatype, list(found.shape)) == ("x", datatype, shape)
    assert list(request.raw_input_contents) == [np.array(values, TYPES[datatype]).tobytes()]


@given(st.lists(st.binary(max_size=9), min_size=1, max_size=4))
def test_binary_data_are_views_in_the_order_of_inputs(parts: list[bytes]) -> None:
    inputs = [tensor(parameters={"binary_data_size": len(part)}) for part in parts]
    request = read({"inputs": inputs}, binary=b"".join(parts), has_header=True)
    views = request.raw_input_contents
    assert [bytes(view) for view in views] == parts
    assert all(isinstance(view, memoryview) for view in views)


def test_outputs_have_classification_and_their_form() -> None:
    request = read(
        {
            **one(data=[1, 2]),
            "id": "7",
            "parameters": {"binary_data_output": True, "custom": {"unknown": []}},
            "unknown": 1,
            "outputs": [
                {"name": "a", "parameters": {"classification": 3, "binary_data": False}},
                {"name": "b", "unknown": None},
            ],
        }
    )
    assert (request.model_name, request.model_version, request.id) == ("mnist", "1", "7")
    first, second = request.outputs
    assert first.parameters["classification"].int64_param == 3
    assert not second.parameters
    assert (request.writes_text("a"), request.writes_text("b")) == (True, False)


def test_outputs_are_text_unless_asked_for_in_binary() -> None:
    assert read(one(data=[1, 2])).writes_text("logits")


REGION = {"shared_memory_region": "region", "shared_memory_byte_size": 2}
NUMBERS = "inputs[0].data: expected whole numbers from 0 to 255"


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (b"", "request: expected a JSON object: Expecting value at line 1, column 1"),
        (b"[]", "request: expected a JSON object: got a list"),
        (b'"\xff"', "request: expected a JSON object: no UTF-8 at byte 1"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"inputs":' * 100_000, "nested too deeply"),
        (b'{"a": ' + b"9" * 5000 + b"}", "a number has too many digits"),
        (b'{"inputs": [], "inputs": []}', "got 'inputs' twice in an object"),
        (b'{"a": NaN}', "finite numbers, got NaN"),
        (b'{"a": -Infinity}', "finite numbers, got -Infinity"),
        (b'{"a": [' + b"{}," * 2000 + b"{}]}", "at most 1000 objects in the JSON, got more"),
        ({}, "inputs: expected a list of objects, got nothing"),
        ({"inputs": "images"}, "inputs: expected a list of objects, got 'images'"),
        ({"inputs": [1]}, "inputs[0]: expected an object, got a whole number"),
        (
            {"inputs": [{}]},
            "inputs[0].name: expected a text, got nothing; inputs[0].datatype: expected a text, "
            "got nothing; inputs[0].shape: expected a list of whole numbers, got nothing; "
            "inputs[0].data: expected the elements, or binary data "
            "(inputs[0].parameters.binary_data_size), got neither",
        ),
        (one(name=7, data=[1, 2]), "inputs[0].name: expected a text, got 7"),
        (one(name="\ud800", data=[1, 2]), "inputs[0].name: expected a text, got '\\ud800'"),
        (one(shape=[1, 2.0], data=[1, 2]), "inputs[0].shape: expected a list of whole numbers"),
        (one(shape=[True, 2], data=[1, 2]), "inputs[0].shape: expected a list of whole numbers"),
        (one(shape=[2**63], data=[1, 2]), "inputs[0].shape: expected a list of whole numbers"),
        (one(data=7), f"{NUMBERS} in a list, flat or nested alike, got a whole number"),
        (one(data=[[1], 2]), f"{NUMBERS} in a list, flat or nested alike, got a list of lists"),
        (one(data=[1, [2]]), f"{NUMBERS}, got also a list"),
        (one(data=[1, "2"]), f"{NUMBERS}, got also a text"),
        (one(data=[1, True]), f"{NUMBERS}, got also a truth value"),
        (one(data=[1, 2.0]), f"{NUMBERS}, got also a number with a fraction"),
        (one(data=[1, 256]), f"{NUMBERS}, got one that is too large or negative"),
        (one(data=[1, -1]), f"{NUMBERS}, got one that is too large or negative"),
        (
            one(datatype="FP32", data=[10**400, 0]),
            "inputs[0].data: expected numbers, got one that is too large or negative",
        ),
        (one(datatype="FP32", data=[None, {}]), "expected numbers, got also an object and null"),
        (
            one(data=[1, 2, 3]),
            "inputs[0].data: expected 2 elements for UINT8 of shape [1, 2], got 3",
        ),
        (
            one(data=[1, 2], parameters={"binary_data_size": 2}),
            "inputs[0].data: expected the elements here or as binary data "
            "(inputs[0].parameters.binary_data_size), got both",
        ),
        (
            one(parameters={"binary_data_size": 2}),
            "binary_data_size: binary data need the header Inference-Header-Content-Length",
        ),
        (one(parameters=[]), "inputs[0].parameters: expected an object, got a list"),
        (one(parameters=REGION), "inputs[0].parameters: shared memory is not supported"),
        (
            {**one(data=[1, 2]), "outputs": [{"name": "logits", "parameters": REGION}]},
            "outputs[0].parameters: shared memory is not supported",
        ),
        ({**one(data=[1, 2]), "outputs": {}}, "outputs: expected a list of objects, got an object"),
        ({**one(data=[1, 2]), "id": 7}, "id: expected a text, got 7"),
        (
            {**one(data=[1, 2]), "parameters": {"binary_data_output": 1}},
            "parameters.binary_data_output: expected true or false, got 1",
        ),
        (
            {
                **one(data=[1, 2]),
                "outputs": [{"name": "a", "parameters": {"classification": "3"}}],
            },
            "outputs[0].parameters.classification: expected a whole number, got '3'",
        ),
    ],
)
def test_every_fault_of_a_body_is_named(document: object, expected: str) -> None:
    found = refused(document)
    assert expected in found
    assert len(found) < 1000


@pytest.mark.parametrize(
    ("size", "sent", "expected"),
    [
        (3, b"12", "expected 3 bytes in the body after what comes before them, got 2"),
        (1, b"12", "as many bytes after the JSON as the inputs' binary_data_size say, got 1 more"),
        (-1, b"12", "binary_data_size: expected a whole number of 0 or more, got -1"),
        ("2", b"12", "binary_data_size: expected a whole number of 0 or more, got '2'"),
    ],
)
def test_binary_data_of_another_size_are_refused(size: object, sent: bytes, expected: str) -> None:
    assert expected in refused(one(parameters={"binary_data_size": size}), binary=sent)


def test_thousands_of_faults_give_bounded_errors() -> None:
    inputs = [{"name": index} for index in range(900)]
    assert len(refused({"inputs": inputs, "outputs": [[]] * 10**5})) < 3000


def test_every_error_of_a_service_has_an_http_status() -> None:
    kinds = (each for each in vars(errors).values() if isinstance(each, type))
    statuses = {
        vars(kind)["status"]
        for kind in kinds
        if issubclass(kind, errors.ServiceError) and "status" in vars(kind)
    }
    assert statuses
    assert statuses <= set(HTTP_STATUS)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["name", "shape", "data", "parameters", "binary_data_size", "x"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)
NEARLY = st.fixed_dictionaries(
    {},
    optional={
        "inputs": st.lists(
            st.fixed_dictionaries(
                {},
                optional={
                    "name": st.just("images") | JSON,
                    "datatype": st.sampled_from(["UINT8", "FP32", "FP64"]) | JSON,
                    "shape": st.lists(st.integers(-1, 3), max_size=3) | JSON,
                    "data": st.lists(PIXELS, max_size=4) | JSON,
                    "parameters": JSON,
                },
            ),
            max_size=2,
        )
        | JSON,
        "outputs": JSON,
        "parameters": JSON,
        "id": JSON,
    },
)


@settings(max_examples=300)
@given(document=NEARLY | JSON, binary=st.none() | st.binary(max_size=4))
def test_any_body_is_a_request_or_an_invalid_argument(
    document: object, binary: bytes | None
) -> None:
    text = json.dumps(document).encode()
    body, json_bytes = (text, None) if binary is None else (text + binary, len(text))
    try:
        request = infer_request("mnist", "", body, json_bytes)
    except InvalidArgumentError as error:
        assert 0 < len(str(error)) < 5000  # noqa: PT017 (either is right)
    else:
        assert len(request.inputs) == len(request.raw_input_contents)


@given(st.binary(max_size=60))
def test_any_bytes_are_a_request_or_an_invalid_argument(body: bytes) -> None:
    try:
        infer_request("mnist", "", body, None)
    except InvalidArgumentError as error:
        assert str(error)  # noqa: PT017 (either is right)


def answer(values: np.ndarray, *, is_text: bool, datatype: str = "FP32") -> tuple[Any, bytes, int]:
    """Return a response's JSON, binary data and bytes of text."""
    response = oip.ModelInferResponse(model_name="mnist", model_version="1", id="é")
    response.outputs.add(name="logits", datatype=datatype, shape=values.shape)
    response.raw_output_contents.append(values.tobytes())
    request = RestRequest("mnist", "", "é", [], [], [], {"logits": is_text}, is_text=not is_text)
    body = infer_body(response, request)
    end = len(body.content) if body.json_bytes is None else body.json_bytes
    return json.loads(body.content[:end]), body.content[end:], end


@given(st.lists(FLOATS, min_size=1, max_size=20))
def test_floats_in_json_are_the_same_numbers(values: list[float]) -> None:
    array = np.array(values, np.float32)
    document, rest, text_bytes = answer(array, is_text=True)
    (output,) = document["outputs"]
    assert output["data"] == values
    assert (output["shape"], document["id"], rest) == ([len(values)], "é", b"")
    _, _, empty_bytes = answer(array[:0], is_text=True)
    assert text_bytes - empty_bytes <= len(values) * TEXT_VALUE_BYTES + len(str(len(values)))


def test_binary_outputs_come_after_the_json() -> None:
    array = np.arange(3, dtype=np.float32)
    document, rest, _ = answer(array, is_text=False)
    (output,) = document["outputs"]
    assert output == {
        "name": "logits",
        "datatype": "FP32",
        "shape": [3],
        "parameters": {"binary_data_size": 12},
    }
    assert rest == array.tobytes()


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner),
    max_leaves=5,
)


@given(JSON_VALUES | st.fixed_dictionaries({"ready": JSON_VALUES}, optional={"more": JSON_VALUES}))
def test_an_index_body_is_taken_or_its_violation_named(body: Any) -> None:  # noqa: ANN401 (JSON)
    asked = body.get("ready", False) if isinstance(body, dict) else None
    if isinstance(asked, bool):
        expected = oip.RepositoryIndexRequest(ready=asked)
        assert index_request(json.dumps(body).encode()) == expected
        return
    with pytest.raises(InvalidArgumentError) as caught:
        index_request(json.dumps(body).encode())
    (violation,) = caught.value.violations
    assert violation.field == ("ready" if isinstance(body, dict) else "request")


@given(st.binary(max_size=20))
def test_any_bytes_as_an_index_body_are_taken_or_refused(body: bytes) -> None:
    with suppress(InvalidArgumentError):
        index_request(body)
        assert not body or isinstance(json.loads(body), dict)
