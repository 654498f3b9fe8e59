"""Responses of the Open Inference Protocol as bodies of REST."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from google.protobuf.message import Message
from pydantic_core import to_json

from inference import open_inference_pb2 as oip
from server.api.open_inference.requests import RestRequest
from server.api.open_inference.rest import BINARY_SIZE

EXTENSIONS = ("binary_tensor_data",)  # that REST has in addition


class Body(NamedTuple):
    """The body of a response, and how long its JSON is if binary data follow."""

    content: bytes
    json_bytes: int | None = None


def infer_body(response: oip.ModelInferResponse, request: RestRequest) -> Body:
    """Return the outputs, each as the request wants it written."""
    outputs: list[dict[str, Any]] = []
    binary: list[bytes] = []
    for output, raw in zip(response.outputs, response.raw_output_contents, strict=True):
        described: dict[str, Any] = _tensor(output)
        if request.writes_text(output.name):
            described["data"] = _elements(output.datatype, raw)
        else:
            described["parameters"] = {BINARY_SIZE: len(raw)}
            binary.append(raw)
        outputs.append(described)
    head = {"model_name": response.model_name, "model_version": response.model_version}
    if response.id:
        head["id"] = response.id
    text = to_json({**head, "outputs": outputs}, inf_nan_mode="null")
    return Body(b"".join((text, *binary)), len(text)) if binary else Body(text)


def index_body(response: oip.RepositoryIndexResponse) -> list[dict[str, str]]:
    """Return the versions of the model; each has every field, as Triton writes them."""
    return [
        {
            "name": each.name,
            "version": each.version,
            "state": each.state,
            "reason": each.reason,
        }
        for each in response.models
    ]


def _statistics(response: oip.ModelStatisticsResponse) -> dict[str, Any]:
    return {"model_stats": [_numbers(each) for each in response.model_stats]}


def _numbers(message: Message) -> dict[str, Any]:
    """Return every field of a message; protobuf's own JSON has 64-bit numbers as texts."""
    written: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if field.message_type is None:
            written[field.name] = value
        elif field.is_repeated:
            written[field.name] = [_numbers(each) for each in value]
        else:
            written[field.name] = _numbers(value)
    return written


def _tensor(
    tensor: oip.ModelMetadataResponse.TensorMetadata | oip.ModelInferResponse.InferOutputTensor,
) -> dict[str, Any]:
    return {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}


def _elements(datatype: str, raw: bytes) -> list[float] | list[str]:
    """Return the elements of an output: a float32 as the same number, BYTES as texts."""
    if datatype != "BYTES":
        floats: list[float] = np.frombuffer(raw, "<f4").tolist()
        return floats
    texts, at = [], 0
    while at < len(raw):
        end = at + 4 + int.from_bytes(raw[at : at + 4], "little")
        texts.append(raw[at + 4 : end].decode())
        at = end
    return texts


def _server_metadata(response: oip.ServerMetadataResponse) -> dict[str, Any]:
    extensions = [*response.extensions, *EXTENSIONS]
    return {"name": response.name, "version": response.version, "extensions": extensions}


def _model_metadata(response: oip.ModelMetadataResponse) -> dict[str, Any]:
    return {
        "name": response.name,
        "versions": list(response.versions),
        "platform": response.platform,
        "inputs": [_tensor(each) for each in response.inputs],
        "outputs": [_tensor(each) for each in response.outputs],
    }


def _model_config(response: oip.ModelConfigResponse) -> dict[str, Any]:
    config = response.config
    return {
        "name": config.name,
        "platform": config.platform,
        "backend": config.backend,
        "max_batch_size": config.max_batch_size,
        "input": [_configured(each) for each in config.input],
        "output": [_configured(each) for each in config.output],
    }


def _configured(tensor: oip.ModelInput | oip.ModelOutput) -> dict[str, Any]:
    return {
        "name": tensor.name,
        "data_type": oip.DataType.Name(tensor.data_type),
        "dims": list(tensor.dims),
    }


@dataclass(frozen=True, slots=True)
class Read:
    """What can be read of the server or, with a name and a version, of a model.

    Args:
        path: after that of the server or of the model.
        method: what answers it, by its name.
        request: its request, of the name and the version; empty ones for the server.
        content: the response as JSON.
        is_true: whether what was asked holds.
    """

    path: str
    method: str
    request: Callable[[str, str], Message]
    content: Callable[[Any], dict[str, Any]]
    is_true: Callable[[Any], bool] = lambda _response: True


MODEL_STATISTICS = Read(
    "/stats",
    "ModelStatistics",
    lambda name, version: oip.ModelStatisticsRequest(name=name, version=version),
    _statistics,
)
SERVER_READS = (
    Read("", "ServerMetadata", lambda *_: oip.ServerMetadataRequest(), _server_metadata),
    replace(MODEL_STATISTICS, path="/models/stats"),  # before a model of that name
    Read(
        "/health/live",
        "ServerLive",
        lambda *_: oip.ServerLiveRequest(),
        lambda response: {"live": response.live},
    ),
    Read(
        "/health/ready",
        "ServerReady",
        lambda *_: oip.ServerReadyRequest(),
        lambda response: {"ready": response.ready},
        lambda response: response.ready,
    ),
)
MODEL_METADATA = Read(
    "",
    "ModelMetadata",
    lambda name, version: oip.ModelMetadataRequest(name=name, version=version),
    _model_metadata,
)
MODEL_READS = (
    MODEL_METADATA,
    MODEL_STATISTICS,
    Read(
        "/config",
        "ModelConfig",
        lambda name, version: oip.ModelConfigRequest(name=name, version=version),
        _model_config,
    ),
    Read(
        "/ready",
        "ModelReady",
        lambda name, version: oip.ModelReadyRequest(name=name, version=version),
        lambda response: {"ready": response.ready},
        lambda response: response.ready,
    ),
)
