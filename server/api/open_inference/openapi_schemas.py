"""The schemas of the bodies that the Open Inference Protocol over REST has."""

from typing import Any, get_args

from server.repository.versions import State

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


def ref(kind: str, name: str) -> Schema:
    """Return a reference to a component of a kind."""
    return {"$ref": f"#/components/{kind}/{name}"}


def schema(name: str) -> Schema:
    """Return a reference to one of the schemas."""
    return ref("schemas", name)


def _duration(description: str) -> Schema:
    return {"allOf": [schema("Duration")], "description": description}


INTEGER: Schema = {"type": "integer"}
COUNT: Schema = {"type": "integer", "minimum": 0}
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
            "inputs": _list(schema("TensorMetadata")),
            "outputs": _list(schema("TensorMetadata")),
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
            "input": _list(schema("TensorConfig")),
            "output": _list(schema("TensorConfig")),
        }
    ),
    "Elements": {
        "type": "array",
        "description": "In row-major order, flat or nested: numbers, or texts of a classification.",
        "items": {"anyOf": [{"type": "number"}, {"type": "string"}, schema("Elements")]},
    },
    "RequestInput": _object(
        {
            "name": _text("`images`.", examples=["images"]),
            "datatype": _text("Of the elements.", enum=["UINT8", "FP32"]),
            "shape": {**SHAPE, "description": "[N, height, width]."},
        },
        {
            "data": schema("Elements"),
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
        {"inputs": _list(schema("RequestInput"))},
        {
            "id": _text("Comes back in the response."),
            "outputs": _list(schema("RequestOutput"), "None: all that the model's metadata list."),
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
            "data": schema("Elements"),
            "parameters": _object({}, {"binary_data_size": INTEGER}),
        },
    ),
    "InferResponse": _object(
        {
            "model_name": _text("As asked for."),
            "model_version": _text("That computed it."),
            "outputs": _list(schema("ResponseOutput")),
        },
        {"id": _text("The request's.")},
    ),
    "Duration": _object({"count": COUNT, "ns": COUNT}),
    "InferStatistics": _object(
        {
            "success": _duration("Requests that got a response."),
            "fail": _duration("Calls that ended with an error, or were cancelled."),
            "queue": _duration("Requests whose run began; the time that they waited for it."),
            "compute_input": _duration("Nothing."),
            "compute_infer": _duration("Runs of the runtime, which requests share."),
            "compute_output": _duration("Responses; the time that it took to make them."),
            "cache_hit": _duration("Nothing: no response is kept."),
            "cache_miss": _duration("Nothing."),
        }
    ),
    "BatchStatistics": _object(
        {
            "batch_size": {**COUNT, "description": "Most images of these runs, a power of two."},
            "compute_input": _duration("Nothing."),
            "compute_infer": _duration("Runs; `ns` is 0, as no time is kept by size."),
            "compute_output": _duration("Nothing."),
        }
    ),
    "ModelStatistics": _object(
        {
            "name": _text("Of the model."),
            "version": _text("One that is served, or was since the start."),
            "last_inference": {
                **COUNT,
                "description": "When a run last ended, in ms since 1970; 0: never.",
            },
            "inference_count": {**COUNT, "description": "Images."},
            "execution_count": {**COUNT, "description": "Runs of the runtime."},
            "inference_stats": schema("InferStatistics"),
            "batch_stats": _list(schema("BatchStatistics")),
        }
    ),
    "Statistics": _object({"model_stats": _list(schema("ModelStatistics"))}),
    "IndexRequest": _object(
        {}, {"ready": {**BOOLEAN, "description": "Whether to list only what is served."}}
    ),
    "Index": _list(
        _object(
            {
                "name": _text("Of the model."),
                "version": _text("A version in its folder."),
                "state": _text("Whether it is served.", enum=list(get_args(State))),
                "reason": _text("Why it is in this state; empty: that is plain."),
            }
        )
    ),
}
