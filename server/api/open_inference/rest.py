"""Bodies of REST to requests of the Open Inference Protocol. No HTTP here but what a header says.

https://github.com/kserve/open-inference-protocol, and of Triton's extensions: binary tensor data,
classification.
"""

import re
from collections.abc import Sequence
from math import prod

from inference import open_inference_pb2 as oip
from server.api.open_inference.codec import (
    CLASSIFICATION,
    NUMPY_TYPES,
    SHARED_MEMORY,
    no_shared_memory,
)
from server.api.open_inference.json_data import element_bytes
from server.api.open_inference.json_fields import Fields, parse
from server.api.open_inference.requests import RestRequest
from server.api.sizes import MAX_VIOLATIONS
from server.errors import InvalidArgumentError, Violation

BINARY_SIZE = "binary_data_size"  # of an input's elements, which come after the JSON
BINARY_OUTPUT = "binary_data"  # whether an output's elements do
BINARY_OUTPUTS = "binary_data_output"  # whether those of all others do
LENGTH_HEADER = "Inference-Header-Content-Length"


def infer_request(model: str, version: str, body: bytes, json_bytes: int | None) -> RestRequest:
    """Return what a body asks for.

    Args:
        model: name of the model, of the path.
        version: its version; empty: any.
        body: JSON, and then the binary data of the inputs.
        json_bytes: how long the JSON is, if a header says so; all of the body if not.

    Raises:
        InvalidArgumentError: everything that makes it no such request.
    """
    rest = memoryview(body)[len(body) if json_bytes is None else json_bytes :]
    fields = Fields(parse(body[: len(body) - len(rest)]))
    message = oip.ModelInferRequest()
    binary = _Binary(rest, has_header=json_bytes is not None)
    raw = _read_inputs(fields, message, binary)
    is_text = not fields.object("parameters").flag(BINARY_OUTPUTS)
    text_outputs = _read_outputs(fields, message)
    request_id = fields.text("id", default="")
    binary.check_end(fields.found)
    if fields.found:
        raise InvalidArgumentError(fields.found)
    return RestRequest(
        model, version, request_id, message.inputs, message.outputs, raw, text_outputs, is_text
    )


def raw_request(
    model: str, version: str, body: bytes, metadata: oip.ModelMetadataResponse
) -> RestRequest:
    """Return what a body without any JSON asks for: it is one image, its input's elements."""
    message = oip.ModelInferRequest()
    (images,) = metadata.inputs
    message.inputs.add(
        name=images.name, datatype=images.datatype, shape=[abs(size) for size in images.shape]
    )
    return RestRequest(
        model, version, "", message.inputs, message.outputs, [body], {}, is_text=False
    )


def index_request(body: bytes) -> oip.RepositoryIndexRequest:
    """Return what a body asks of the repository; an empty one lists every version.

    Raises:
        InvalidArgumentError: it is no such request.
    """
    fields = Fields(parse(body) if body else {})
    request = oip.RepositoryIndexRequest(ready=fields.flag("ready"))
    if fields.found:
        raise InvalidArgumentError(fields.found)
    return request


def in_rest_terms(error: InvalidArgumentError) -> InvalidArgumentError:
    """Return an error of the service with the names that the fields have in a body."""
    return InvalidArgumentError(
        [
            Violation(
                re.sub(r"^raw_input_contents(\[\d+\])", r"inputs\1.data", each.field),
                each.description,
            )
            for each in error.violations
        ]
    )


class _Binary:
    """The binary data after the JSON, which the inputs take one after the other."""

    def __init__(self, data: memoryview, *, has_header: bool) -> None:
        self._data = data
        self._has_header = has_header
        self._at = 0

    def take(self, size: int, path: str, found: list[Violation]) -> memoryview:
        left = len(self._data) - self._at
        if not self._has_header:
            text = (
                f"binary data need the header {LENGTH_HEADER}, the length of the JSON before them"
            )
            found.append(Violation(path, text))
        elif size > left:
            text = f"expected {size} bytes in the body after what comes before them, got {left}"
            found.append(Violation(path, text))
        start, self._at = self._at, min(self._at + size, len(self._data))
        return self._data[start : self._at]

    def check_end(self, found: list[Violation]) -> None:
        """Append a violation if nobody has taken the last bytes; it would only repeat others."""
        left = len(self._data) - self._at
        if left and not found:
            text = f"expected as many bytes after the JSON as the inputs' {BINARY_SIZE} say"
            found.append(Violation("request", f"{text}, got {left} more"))


def _read_inputs(
    fields: Fields, message: oip.ModelInferRequest, binary: _Binary
) -> Sequence[bytes | memoryview]:
    """Put the inputs into a message; return the elements of each."""
    raw: list[bytes | memoryview] = []
    for each in fields.objects("inputs", is_required=True):
        if len(fields.found) >= MAX_VIOLATIONS:
            break
        tensor = message.inputs.add(name=each.text("name"), datatype=each.text("datatype"))
        shape = each.sizes("shape")
        tensor.shape.extend(shape)
        raw.append(_elements(each, tensor.datatype, shape, binary))
    return raw


def _elements(
    fields: Fields, datatype: str, shape: list[int], binary: _Binary
) -> bytes | memoryview:
    """Return the elements of an input; append to its violations what is wrong with them."""
    found, parameters = fields.found, fields.object("parameters")
    data_path, size_path = fields.path("data"), parameters.path(BINARY_SIZE)
    if SHARED_MEMORY in parameters:
        found.append(no_shared_memory(fields.path()))
        return b""
    if BINARY_SIZE in parameters:
        if "data" in fields:
            text = f"expected the elements here or as binary data ({size_path}), got both"
            found.append(Violation(data_path, text))
        return binary.take(parameters.size(BINARY_SIZE), size_path, found)
    if "data" not in fields:
        text = f"expected the elements, or binary data ({size_path}), got neither"
        found.append(Violation(data_path, text))
        return b""
    dtype = NUMPY_TYPES.get(datatype)
    if dtype is None:  # the service says so
        return b""
    data = element_bytes(fields.value("data"), dtype, data_path, found)
    count = len(data) // dtype.itemsize
    if not found and min(shape, default=0) >= 0 and count != prod(shape):
        text = f"expected {prod(shape)} elements for {datatype} of shape {shape}, got {count}"
        found.append(Violation(data_path, text))
    return data


def _read_outputs(fields: Fields, message: oip.ModelInferRequest) -> dict[str, bool]:
    """Put the outputs into a message; return which of them are to be text, of those that say."""
    text_outputs: dict[str, bool] = {}
    for each in fields.objects("outputs"):
        if len(fields.found) >= MAX_VIOLATIONS:
            break
        name, parameters = each.text("name"), each.object("parameters")
        output = message.outputs.add(name=name)
        if SHARED_MEMORY in parameters:
            fields.found.append(no_shared_memory(each.path()))
        if CLASSIFICATION in parameters:
            count = parameters.whole_number(CLASSIFICATION)
            output.parameters[CLASSIFICATION].int64_param = count
        if BINARY_OUTPUT in parameters:
            text_outputs[name] = not parameters.flag(BINARY_OUTPUT)
    return text_outputs
