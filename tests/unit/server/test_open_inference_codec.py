"""The codec of the Open Inference Protocol: the right array or every fault, and nothing else."""

from math import prod
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from export.bundle import Bundle
from inference import open_inference_pb2 as oip
from server.api.open_inference.codec import (
    WantedOutput,
    decode_images,
    plan_outputs,
    put_outputs,
    response_bytes,
)
from server.engine.images import ImageDecoder
from server.errors import Violation
from tests.support.bundles import publish_random_bundle

MAX_IMAGES = 3
SHAPE = (3, 5)  # of the tiny bundle, small enough to draw all of it
TYPES: dict[str, np.dtype[Any]] = {"FP32": np.dtype(np.float32), "UINT8": np.dtype(np.uint8)}
FIELDS = {"FP32": "fp32_contents", "UINT8": "uint_contents"}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return publish_random_bundle(tmp_path_factory.mktemp("models"), "tiny")


@pytest.fixture(scope="module")
def decoder(tiny: Bundle) -> ImageDecoder:
    assert tiny.manifest.input_shape == SHAPE
    return ImageDecoder(tiny.manifest, MAX_IMAGES)


def request_of(array: np.ndarray, *, is_raw: bool) -> oip.ModelInferRequest:
    """Return a request for an array, with raw or with typed contents."""
    datatype = {dtype: name for name, dtype in TYPES.items()}[array.dtype]
    request = oip.ModelInferRequest(model_name="tiny")
    tensor = request.inputs.add(name="images", datatype=datatype, shape=array.shape)
    if is_raw:
        request.raw_input_contents.append(array.tobytes())
    else:
        tensor.contents.SetInParent()
        getattr(tensor.contents, FIELDS[datatype]).extend(array.ravel().tolist())
    return request


def judged(request: oip.ModelInferRequest) -> np.ndarray | None:
    """Return the images that a request has by the rules of the protocol: the oracle."""
    if [tensor.name for tensor in request.inputs] != ["images"]:
        return None
    (tensor,) = request.inputs
    shape, dtype = tuple(tensor.shape), TYPES.get(tensor.datatype)
    if dtype is None or shape not in {(images, *SHAPE) for images in range(1, MAX_IMAGES + 1)}:
        return None
    values = _sent_values(request, tensor.datatype)
    most = 255 if dtype == np.uint8 else 1.0
    if values is None or len(values) != prod(shape) or not all(0 <= v <= most for v in values):
        return None
    return np.array(values, dtype).reshape(shape)


def _sent_values(request: oip.ModelInferRequest, datatype: str) -> list[float] | None:
    (tensor,), raw = request.inputs, list(request.raw_input_contents)
    if "shared_memory_region" in tensor.parameters or (raw and tensor.HasField("contents")):
        return None
    if raw:
        is_whole = len(raw) == 1 and len(raw[0]) % TYPES[datatype].itemsize == 0
        return np.frombuffer(raw[0], TYPES[datatype]).tolist() if is_whole else None
    fields = {field.name: list(value) for field, value in tensor.contents.ListFields()}
    return fields[FIELDS[datatype]] if list(fields) == [FIELDS[datatype]] else None


def texts(violations: list[Violation]) -> list[str]:
    return [f"{violation.field}: {violation.description}" for violation in violations]


PIXELS = st.integers(0, 255)
FLOATS = st.floats(0, 1, width=32)
WRONG_FLOATS = st.sampled_from([1.5, 255.0, -0.5, np.nan, np.inf, -np.inf])
SHAPES = st.tuples(st.integers(1, MAX_IMAGES), *(st.just(size) for size in SHAPE)) | st.lists(
    st.sampled_from([-1, 0, 1, 3, 4, 5, 15, 2**40]), max_size=5
)
NAMES = st.sampled_from(["images", "", "input", "\x00" * 3000])
DATATYPES = st.sampled_from(["FP32", "UINT8", "", "FP64", "BYTES", "uint8", "é" * 3000])
CONTENTS = st.fixed_dictionaries(
    {},
    optional={
        "fp32_contents": st.lists(FLOATS | WRONG_FLOATS, max_size=50),
        "uint_contents": st.lists(PIXELS | st.sampled_from([256, 2**32 - 1]), max_size=50),
        "int_contents": st.lists(st.integers(-1, 1), max_size=3),
        "bytes_contents": st.lists(st.binary(max_size=3), max_size=2),
    },
)


@st.composite
def requests(draw: st.DrawFn) -> oip.ModelInferRequest:
    """A request that is whole, or nearly so, or anything."""
    kind = draw(st.sampled_from(list(TYPES)))
    shape = (draw(st.integers(1, MAX_IMAGES + 1)), *SHAPE)
    elements: st.SearchStrategy[float] = FLOATS if kind == "FP32" else PIXELS
    values: list[float] = draw(st.lists(elements, min_size=prod(shape), max_size=prod(shape)))
    if kind == "FP32" and draw(st.integers(0, 3)) == 0:
        values[draw(st.integers(0, len(values) - 1))] = draw(WRONG_FLOATS)
    array: np.ndarray = np.array(values, TYPES[kind]).reshape(shape)
    request = request_of(array, is_raw=draw(st.booleans()))
    for change in draw(st.lists(st.sampled_from(range(8)), max_size=2)):
        _change(draw, request, change)
    return request


def _change(draw: st.DrawFn, request: oip.ModelInferRequest, change: int) -> None:
    tensor = request.inputs[0]
    if change == 0:
        tensor.name = draw(NAMES)
    elif change == 1:
        tensor.datatype = draw(DATATYPES)
    elif change == 2:
        tensor.shape[:] = draw(SHAPES)
    elif change == 3:
        request.raw_input_contents.append(draw(st.binary(max_size=70)))
    elif change == 4:
        for field, content in draw(CONTENTS).items():
            getattr(tensor.contents, field).extend(content)
    elif change == 5:
        tensor.parameters["shared_memory_region"].string_param = "region"
    elif change == 6:
        request.inputs.add(name=draw(NAMES))
    else:
        tensor.contents.SetInParent()


@settings(max_examples=400)
@given(request=requests())
def test_a_request_gives_images_or_every_violation(
    decoder: ImageDecoder, request: oip.ModelInferRequest
) -> None:
    decoded, expected = decode_images(request, decoder), judged(request)
    if isinstance(decoded, list):
        assert expected is None
        assert decoded
        assert all(len(text) < 400 for text in texts(decoded))
    else:
        images = decoded
        assert expected is not None
        assert (images.dtype, images.shape) == (expected.dtype, expected.shape)
        assert images.tobytes() == expected.tobytes()


@given(kind=st.sampled_from(list(TYPES)), is_raw=st.booleans(), images=st.integers(1, MAX_IMAGES))
def test_raw_and_typed_contents_are_the_same_array(
    decoder: ImageDecoder, kind: str, images: int, *, is_raw: bool
) -> None:
    random = np.random.default_rng(images)
    array: np.ndarray = random.integers(0, 256, (images, *SHAPE)).astype(np.uint8)
    if kind == "FP32":
        array = random.random((images, *SHAPE), np.float32)
    found = decode_images(request_of(array, is_raw=is_raw), decoder)
    assert isinstance(found, np.ndarray)
    assert found.tobytes() == array.tobytes()


ONES = np.ones((2, *SHAPE), np.float32)


def changed(
    array: np.ndarray = ONES, *, is_raw: bool = True, **fields: object
) -> oip.ModelInferRequest:
    request = request_of(array, is_raw=is_raw)
    request.inputs[0].MergeFrom(oip.ModelInferRequest.InferInputTensor(**fields))  # type: ignore[arg-type] # fields of a tensor
    return request


def contents(**fields: object) -> oip.InferTensorContents:
    return oip.InferTensorContents(**fields)  # type: ignore[arg-type] # fields of contents


TWO_RAW = changed()
TWO_RAW.raw_input_contents.append(b"")
NO_DATA = oip.ModelInferRequest(
    inputs=[
        oip.ModelInferRequest.InferInputTensor(name="images", datatype="UINT8", shape=[1, 3, 5])
    ]
)
REGION = {"shared_memory_region": oip.InferParameter(string_param="region")}


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (NO_DATA, ["raw_input_contents: expected the elements of 'images' here or in inputs[0].c"]),
        (TWO_RAW, ["raw_input_contents: expected as many as there are inputs (1), or none, got 2"]),
        (
            changed(contents=contents(fp32_contents=[1])),
            ["inputs[0].contents: expected the elements here or in raw_input_contents, got both"],
        ),
        (
            changed(is_raw=False, contents=contents(int_contents=[1])),
            ["inputs[0].contents: expected fp32_contents alone for FP32, got int_contents"],
        ),
        (
            changed(is_raw=False, contents=contents(fp32_contents=[1])),
            [
                "inputs[0].contents.fp32_contents: expected 30 elements for FP32 of shape "
                "[2, 3, 5], got 31"
            ],
        ),
        (
            changed(ONES * 255, is_raw=False),
            ["inputs[0].contents.fp32_contents: expected values from 0 to 1, got 255 to 255; send"],
        ),
        (
            changed(
                ONES[:1].astype(np.uint8), is_raw=False, contents=contents(uint_contents=[256])
            ),
            [
                "inputs[0].contents.uint_contents: expected values from 0 to 255, got 1 to 256",
                "inputs[0].contents.uint_contents: expected 15 elements for UINT8",
            ],
        ),
        (
            changed(parameters=REGION),
            ["inputs[0].parameters: shared memory is not supported; send and take the elements"],
        ),
        (
            changed(datatype="FP64", shape=[1]),
            [
                "inputs[0].shape: expected [N, 3, 5], got [2, 3, 5, 1]",
                "inputs[0].datatype: expected FP32 or UINT8, got 'FP64'",
            ],
        ),
        (
            changed(name="input"),
            ["inputs[0].name: expected 'images', got 'input'"],
        ),
        (
            request_of(ONES[0], is_raw=True),
            ["inputs[0].shape: expected [N, 3, 5], got [3, 5]; one image has N = 1"],
        ),
        (
            request_of(np.zeros((4, *SHAPE), np.uint8), is_raw=True),
            ["inputs[0].shape: expected 1 to 3 images, got 4; split the batch"],
        ),
    ],
)
def test_every_fault_is_named_with_expected_and_got(
    decoder: ImageDecoder, request_: oip.ModelInferRequest, expected: list[str]
) -> None:
    decoded = decode_images(request_, decoder)
    assert isinstance(decoded, list)
    found = texts(decoded)
    assert len(found) == len(expected), found
    for text, part in zip(found, expected, strict=True):
        assert part in text


def test_thousands_of_wrong_inputs_give_bounded_errors(decoder: ImageDecoder) -> None:
    request = oip.ModelInferRequest()
    for _ in range(5000):
        request.inputs.add(name="other")
    decoded = decode_images(request, decoder)
    assert isinstance(decoded, list)
    assert 0 < len(decoded) <= 101


def parameters_of(value: int | str | None) -> dict[str, oip.InferParameter]:
    if value is None:
        return {}
    if isinstance(value, str):
        return {"classification": oip.InferParameter(string_param=value)}
    return {"classification": oip.InferParameter(int64_param=value)}


COUNTS = st.none() | st.integers(-(2**63), 2**63 - 1) | st.just("3") | st.integers(1, 4)
OUTPUTS = ["logits", "input", "flatten", "linear1", "relu", "linear2", "output"]


@given(
    wanted=st.lists(
        st.tuples(st.sampled_from([*OUTPUTS, "softmax", ""]), COUNTS), min_size=1, max_size=4
    ),
    images=st.sampled_from([1, MAX_IMAGES, 200]),
)
def test_outputs_are_in_order_or_every_violation_named(
    tiny: Bundle, wanted: list[tuple[str, int | str | None]], images: int
) -> None:
    request = oip.ModelInferRequest()
    for name, count in wanted:
        request.outputs.add(name=name, parameters=parameters_of(count))
    violations: list[Violation] = []
    planned = plan_outputs(request, tiny.manifest, violations)
    names = [name for name, _ in wanted]
    is_right = all(
        name in OUTPUTS and (count is None or (isinstance(count, int) and count > 0))
        for name, count in wanted
    ) and len(set(names)) == len(names)
    assert is_right == (not violations)
    if not is_right:
        return
    assert [(each.name, each.class_count) for each in planned] == [
        (name, count or 0) for name, count in wanted
    ]
    _fits_its_limit(planned, images)


def _fits_its_limit(planned: list[WantedOutput], images: int) -> None:
    """Compare an answer whose numbers are as long as they get with what was foreseen."""
    response = oip.ModelInferResponse(model_name="tiny", model_version="1")
    longest = np.float32(-3.4e38)
    sizes = {each.stage.name: each.stage.shape for each in planned}
    values = {name: np.full((images, *size), longest, np.float32) for name, size in sizes.items()}
    put_outputs(planned, values, response)
    assert len(response.outputs) == len(response.raw_output_contents) == len(planned)
    assert response.ByteSize() <= response_bytes(planned, images)
