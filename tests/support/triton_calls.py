"""Call a server with tritonclient: `python triton_calls.py FOLDER`, in an environment that has it.

The folder has calls.json (the address, and each call of ModelInfer by name) and arrays.npz (what
the calls send). Into it go answers.json and answers.npz, what a user of tritonclient sees.
"""

import asyncio
import base64
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.grpc import model_config_pb2, service_pb2
from tritonclient.utils import InferenceServerException

MODEL = "mnist"
ABSENT = (("other", ""), (MODEL, "7"))
Answers = tuple[dict[str, Any], dict[str, np.ndarray]]


def inputs_of(call: dict[str, Any], arrays: dict[str, np.ndarray], module: Any) -> list[Any]:  # noqa: ANN401 (tritonclient has no types)
    inputs = []
    for each in call["inputs"]:
        array = arrays[each["array"]]
        datatype = {"uint8": "UINT8", "float32": "FP32", "float64": "FP64"}[array.dtype.name]
        tensor = module.InferInput(each.get("name", "images"), array.shape, datatype)
        tensor.set_data_from_numpy(array)
        tensor.set_shape(each.get("shape", array.shape))
        inputs.append(tensor)
    return inputs


def options_of(call: dict[str, Any], module: Any) -> dict[str, Any]:  # noqa: ANN401 (as above)
    outputs = [
        module.InferRequestedOutput(name, class_count) for name, class_count in call["outputs"]
    ]
    return {
        "model_name": call.get("model", MODEL),
        "model_version": call.get("version", ""),
        "outputs": outputs or None,
        "request_id": call.get("id", ""),
        "compression_algorithm": call.get("compression"),
        "parameters": call.get("parameters"),
        "client_timeout": 60,
    }


def keep(name: str, result: Any, answers: Answers) -> None:  # noqa: ANN401 (as above)
    response = result.get_response()
    facts, arrays = answers
    facts[name] = {
        "model": response.model_name,
        "version": response.model_version,
        "id": response.id,
        "outputs": [[each.name, each.datatype] for each in response.outputs],
        "classes": {},
    }
    for output in response.outputs:
        values = result.as_numpy(output.name)
        if output.datatype == "BYTES":
            facts[name]["classes"][output.name] = [
                [each.decode() for each in row] for row in values
            ]
        else:
            arrays[f"{name}/{output.name}"] = values


def failure(error: InferenceServerException) -> dict[str, str]:
    return {"status": error.status().removeprefix("StatusCode."), "message": error.message()}


def outcome(ask: Callable[[], Any]) -> Any:  # noqa: ANN401 (as above)
    try:
        return ask()
    except InferenceServerException as error:
        return failure(error)


def facts_of(client: Any) -> dict[str, Any]:  # noqa: ANN401 (as above)
    def each(ask: Callable[..., Any]) -> list[Any]:
        return [outcome(partial(ask, name, version)) for name, version in ABSENT]

    return {
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "model_ready": [client.is_model_ready(MODEL), client.is_model_ready(MODEL, "1")],
        "absent_ready": each(client.is_model_ready),
        "no_version": outcome(lambda: client.is_model_ready(MODEL, "latest")),
        "server": client.get_server_metadata(as_json=True),
        "metadata": client.get_model_metadata(MODEL, as_json=True),
        "absent_metadata": each(client.get_model_metadata),
        "config": client.get_model_config(MODEL, as_json=True)["config"],
        "absent_config": each(client.get_model_config),
        "statistics": outcome(lambda: client.get_inference_statistics(MODEL)),
        "protos": [
            base64.b64encode(module.DESCRIPTOR.serialized_pb).decode()
            for module in (model_config_pb2, service_pb2)
        ],
    }


async def call_asynchronously(
    address: str, calls: dict[str, Any], arrays: dict[str, np.ndarray]
) -> Answers:
    answers: Answers = ({}, {})
    async with triton_aio.InferenceServerClient(address) as client:
        for name, call in calls.items():
            try:
                inputs = inputs_of(call, arrays, triton_aio)
                result = await client.infer(inputs=inputs, **options_of(call, triton_aio))
            except InferenceServerException as error:
                answers[0][name] = failure(error)
            else:
                keep(name, result, answers)
    return answers


def call_synchronously(
    client: Any,  # noqa: ANN401 (as above)
    calls: dict[str, Any],
    arrays: dict[str, np.ndarray],
) -> Answers:
    answers: Answers = ({}, {})
    for name, call in calls.items():
        try:
            inputs = inputs_of(call, arrays, triton)
            result = client.infer(inputs=inputs, **options_of(call, triton))
        except InferenceServerException as error:
            answers[0][name] = failure(error)
        else:
            keep(name, result, answers)
    return answers


def main() -> None:
    folder = Path(sys.argv[1])
    plan = json.loads((folder / "calls.json").read_text())
    arrays = dict(np.load(folder / "arrays.npz"))
    with triton.InferenceServerClient(plan["address"]) as client:
        facts = facts_of(client)
        synchronous = call_synchronously(client, plan["calls"], arrays)
    asynchronous = asyncio.run(call_asynchronously(plan["address"], plan["calls"], arrays))
    ways = {"sync": synchronous, "aio": asynchronous}
    facts["calls"] = {way: answers for way, (answers, _) in ways.items()}
    (folder / "answers.json").write_text(json.dumps(facts))
    found = {
        f"{way}/{name}": array for way, (_, kept) in ways.items() for name, array in kept.items()
    }
    np.savez(folder / "answers.npz", allow_pickle=False, **found)


if __name__ == "__main__":
    main()
