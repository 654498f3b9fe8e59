"""The OpenAPI document of the Open Inference Protocol over REST."""

from typing import Any

Schema = dict[str, Any]


def _object(required: dict[str, Schema], optional: dict[str, Schema] | None = None) -> Schema:
    return {
        "type": "object",
        "required": list(required),
        "properties": {**required, **(optional or {})},
    }


def _list(items: Schema, description: str = "") -> Schema:
    schema: Schema = {"type": "array", "items": items}
    return {**schema, "description": description} if description else schema


def _text(description: str, **more: object) -> Schema:
    return {"type": "string", "description": description, **more}


def _ref(kind: str, name: str) -> Schema:
    return {"$ref": f"#/components/{kind}/{name}"}


def _schema(name: str) -> Schema:
    return _ref("schemas", name)


INTEGER: Schema = {"type": "integer"}
BOOLEAN: Schema = {"type": "boolean"}
SHAPE = _list({"type": "integer", "format": "int64"})
DIMS_OF_CONFIG = _list({"type": "integer", "format": "int64"}, "Of one image.")
TENSOR = {"name": _text("Its name."), "datatype": _text("Like `FP32`."), "shape": SHAPE}
SCHEMAS: dict[str, Schema] = {
    "Error": _object({"error": _text("What was expected, what came, and what to do.")}),
    "Live": _object({"live": BOOLEAN}),
    "Ready": _object({"ready": BOOLEAN}),
    "ServerMetadata": _object(
        {
            "name": _text("`forward`."),
            "version": _text("Of the server's package."),
            "extensions": _list({"type": "string"}),
        }
    ),
    "TensorMetadata": _object({**TENSOR, "shape": {**SHAPE, "description": "-1: of the images."}}),
    "ModelMetadata": _object(
        {
            "name": _text("As asked for."),
            "versions": _list({"type": "string"}),
            "platform": _text("In Triton's words."),
            "inputs": _list(_schema("TensorMetadata")),
            "outputs": _list(_schema("TensorMetadata")),
        }
    ),
    "TensorConfig": _object(
        {
            "name": _text("Its name."),
            "data_type": _text("Like `TYPE_FP32`."),
            "dims": DIMS_OF_CONFIG,
        }
    ),
    "ModelConfig": _object(
        {
            "name": _text("As asked for."),
            "platform": _text("In Triton's words."),
            "backend": _text("In Triton's words."),
            "max_batch_size": {**INTEGER, "description": "Images in a request for all outputs."},
            "input": _list(_schema("TensorConfig")),
            "output": _list(_schema("TensorConfig")),
        }
    ),
    "Elements": {
        "type": "array",
        "description": "In row-major order, flat or nested: numbers, or texts of a classification.",
        "items": {"anyOf": [{"type": "number"}, {"type": "string"}, _schema("Elements")]},
    },
    "RequestInput": _object(
        {
            "name": _text("`images`.", examples=["images"]),
            "datatype": _text("Of the elements.", enum=["UINT8", "FP32"]),
            "shape": {**SHAPE, "description": "[N, height, width]."},
        },
        {
            "data": _schema("Elements"),
            "parameters": _object(
                {},
                {
                    "binary_data_size": {
                        "type": "integer",
                        "minimum": 0,
                        "description": "Bytes of the elements, which come after the JSON.",
                    }
                },
            ),
        },
    ),
    "RequestOutput": _object(
        {"name": _text("`logits`, or the name of a stage.", examples=["logits"])},
        {
            "parameters": _object(
                {},
                {
                    "binary_data": {
                        **BOOLEAN,
                        "description": "Whether the elements come after the JSON.",
                    },
                    "classification": {
                        "type": "integer",
                        "minimum": 1,
                        "description": "So many largest values, as `value:index:label`.",
                    },
                },
            )
        },
    ),
    "InferRequest": _object(
        {"inputs": _list(_schema("RequestInput"))},
        {
            "id": _text("Comes back in the response."),
            "outputs": _list(_schema("RequestOutput"), "None: all that the model's metadata list."),
            "parameters": _object(
                {},
                {
                    "binary_data_output": {
                        **BOOLEAN,
                        "description": "`binary_data` of all outputs that do not say.",
                    }
                },
            ),
        },
    ),
    "ResponseOutput": _object(
        TENSOR,
        {
            "data": _schema("Elements"),
            "parameters": _object({}, {"binary_data_size": INTEGER}),
        },
    ),
    "InferResponse": _object(
        {
            "model_name": _text("As asked for."),
            "model_version": _text("That computed it."),
            "outputs": _list(_schema("ResponseOutput")),
        },
        {"id": _text("The request's.")},
    ),
}
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
MODEL = [_ref("parameters", "model")]
VERSION = [*MODEL, _ref("parameters", "version")]
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
        f"{path}/infer": {"post": _infer()},
    }
    return {name: {"parameters": parameters, **operations} for name, operations in paths.items()}


def _read(summary: str, schema: str, *errors: str) -> Schema:
    return {"get": {"summary": summary, "responses": {**_ok(_json(schema)), **_errors(*errors)}}}


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
        "parameters": [_ref("parameters", "json_bytes")],
        "requestBody": {
            "required": True,
            "description": "Compressed with gzip or deflate, if Content-Encoding says so.",
            "content": {**_json("InferRequest"), **binary},
        },
        "responses": {**_ok({**_json("InferResponse"), **binary}), **_errors(*ERRORS)},
    }


def _json(schema: str) -> Schema:
    return {"application/json": {"schema": _schema(schema)}}


def _ok(content: Schema) -> Schema:
    return {"200": {"description": "The answer.", "content": content}}


def _errors(*codes: str) -> Schema:
    return {code: {"description": ERRORS[code], "content": _json("Error")} for code in codes}
