"""The OpenAPI document of the Open Inference Protocol over REST."""

from typing import Any

from server.api.open_inference.openapi_schemas import SCHEMAS, Schema, ref, schema

# By status code.
ERRORS = {
    "400": "The request is not right; the text has every violation.",
    "401": "There is no token, or none that the server knows.",
    "404": "There is no such model or version; the text names what there is.",
    "408": "The body did not arrive in time.",
    "413": "The body is too large.",
    "415": "The body is of a type that the protocol does not have.",
    "429": "The queue is full; `Retry-After` says when to try again.",
    "500": "An unexpected error; the server's log has its cause.",
    "503": "The server is shutting down.",
}
HEADER_LENGTH = "Inference-Header-Content-Length"
MODEL = [ref("parameters", "model")]
VERSION = [*MODEL, ref("parameters", "version")]
PARAMETERS = {
    "model": {
        "name": "model",
        "in": "path",
        "required": True,
        "description": "The bundle's name, or the same with `_trace` after it.",
        "schema": {"type": "string", "minLength": 1},
        "example": "mnist",
    },
    "version": {
        "name": "version",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "pattern": "^[0-9]+$"},
        "example": "1",
    },
    "json_bytes": {
        "name": HEADER_LENGTH,
        "in": "header",
        "description": "Bytes of the JSON, if binary data follow; 0: the body is one UINT8 image.",
        "schema": {"type": "integer", "minimum": 0},
    },
}


def document(version: str) -> dict[str, Any]:
    """Return the document of a version of the server."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Forward: Open Inference Protocol over REST",
            "version": version,
            "license": {"name": "Apache 2.0", "identifier": "Apache-2.0"},
        },
        "paths": {
            "/v2": _read("Describes the server.", "ServerMetadata", "401"),
            "/v2/health/live": _read("Tells if the server is alive.", "Live", "401"),
            "/v2/health/ready": _ready(
                _read("Tells if the server takes requests.", "Ready", "401")
            ),
            "/v2/models/stats": _read("Tells what was computed.", "Statistics", "401", "503"),
            "/v2/repository/index": {"post": _index()},
            **_model_paths("/v2/models/{model}", MODEL),
            **_model_paths("/v2/models/{model}/versions/{version}", VERSION),
        },
        "components": {
            "schemas": SCHEMAS,
            "parameters": PARAMETERS,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"token": []}],  # a server without tokens needs none
    }


def _model_paths(path: str, parameters: list[Schema]) -> dict[str, Schema]:
    codes = ("400", "401", "404", "503")
    paths = {
        path: _read("Describes a model's inputs and outputs.", "ModelMetadata", *codes),
        f"{path}/config": _read("Describes it as Triton configures one.", "ModelConfig", *codes),
        f"{path}/ready": _read("Tells if it takes requests.", "Ready", *codes),
        f"{path}/stats": _read("Tells what was computed by it.", "Statistics", *codes),
        f"{path}/infer": {"post": _infer()},
    }
    return {name: {"parameters": parameters, **operations} for name, operations in paths.items()}


def _read(summary: str, name: str, *errors: str) -> Schema:
    return {"get": {"summary": summary, "responses": {**_ok(_json(name)), **_errors(*errors)}}}


def _ready(path: Schema) -> Schema:
    path["get"]["responses"]["503"] = {
        "description": ERRORS["503"],
        "content": _json("Ready"),
    }
    return path


def _infer() -> Schema:
    binary = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
    return {
        "summary": "Computes outputs for images.",
        "parameters": [ref("parameters", "json_bytes")],
        "requestBody": {
            "required": True,
            "description": "Compressed with gzip or deflate, if Content-Encoding says so.",
            "content": {**_json("InferRequest"), **binary},
        },
        "responses": {**_ok({**_json("InferResponse"), **binary}), **_errors(*ERRORS)},
    }


def _index() -> Schema:
    codes = ("400", "401", "408", "413", "415", "503")
    return {
        "summary": "Lists the versions in the folder of the model.",
        "requestBody": {"content": _json("IndexRequest")},
        "responses": {**_ok(_json("Index")), **_errors(*codes)},
    }


def _json(name: str) -> Schema:
    return {"application/json": {"schema": schema(name)}}


def _ok(content: Schema) -> Schema:
    return {"200": {"description": "The answer.", "content": content}}


def _errors(*codes: str) -> Schema:
    return {code: {"description": ERRORS[code], "content": _json("Error")} for code in codes}
