"""Call a server with tritonclient: `python triton_calls.py FOLDER`, in an environment that has it.

The folder has calls.json (the address of each protocol, and each call of ModelInfer by name) and
arrays.npz (what the calls send). Into it go answers.json and answers.npz, what a user of
tritonclient sees, by way: a protocol ("grpc", "http"), or the asyncio client of one ("grpc.aio").
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
import tritonclient.grpc
import tritonclient.grpc.aio
import tritonclient.http
import tritonclient.http.aio
from tritonclient.grpc import model_config_pb2, service_pb2
from tritonclient.utils import InferenceServerException

MODEL = "mnist"
NAMES = (MODEL, f"{MODEL}_trace")
ABSENT = (("other", ""), (MODEL, "7"))
MODULES = {"grpc": tritonclient.grpc, "http": tritonclient.http}
AIO_MODULES = {"grpc": tritonclient.grpc.aio, "http": tritonclient.http.aio}
Answers = tuple[dict[str, Any], dict[str, np.ndarray]]


def inputs_of(call: dict[str, Any], arrays: dict[str, np.ndarray], protocol: str) -> list[Any]:
    inputs = []
    for each in call["inputs"]:
        array = arrays[each["array"]]
        datatype = {"uint8": "UINT8", "float32": "FP32", "float64": "FP64"}[array.dtype.name]
        tensor = MODULES[protocol].InferInput(each.get("name", "images"), array.shape, datatype)
        form = {"binary_data": not call.get("text")} if protocol == "http" else {}
        tensor.set_data_from_numpy(array, **form)
        tensor.set_shape(each.get("shape", array.shape))
        inputs.append(tensor)
    return inputs


def options_of(call: dict[str, Any], protocol: str) -> dict[str, Any]:
    form: dict[str, Any] = {}
    options: dict[str, Any] = {"compression_algorithm": call.get("compression")}
    if protocol == "http":
        form["binary_data"] = not call.get("text")
        options = {
            f"{side}_{key}": value
            for side in ("request", "response")
            for key, value in options.items()
        }
    else:
        options["client_timeout"] = 60
    requested = MODULES[protocol].InferRequestedOutput
    outputs = [requested(name, class_count=count, **form) for name, count in call["outputs"]]
    return {
        "model_name": call.get("model", MODEL),
        "model_version": call.get("version", ""),
        "outputs": outputs or None,
        "request_id": call.get("id", ""),
        "parameters": call.get("parameters"),
        **options,
    }


def described(response: Any) -> dict[str, Any]:  # noqa: ANN401 (tritonclient has no types)
    """Return a response without its values: over HTTP it is a dict, over gRPC a message."""
    if isinstance(response, dict):
        outputs = [[each["name"], each["datatype"]] for each in response["outputs"]]
        return {
            "model": response["model_name"],
            "version": response["model_version"],
            "id": response.get("id", ""),
            "outputs": outputs,
        }
    return {
        "model": response.model_name,
        "version": response.model_version,
        "id": response.id,
        "outputs": [[each.name, each.datatype] for each in response.outputs],
    }


def keep(name: str, result: Any, answers: Answers) -> None:  # noqa: ANN401 (as above)
    facts, arrays = answers
    facts[name] = {**described(result.get_response()), "classes": {}}
    for output, datatype in facts[name]["outputs"]:
        values = result.as_numpy(output)
        if datatype == "BYTES":
            facts[name]["classes"][output] = [
                [each if isinstance(each, str) else each.decode() for each in row] for row in values
            ]
        else:
            arrays[f"{name}/{output}"] = values


def failure(error: InferenceServerException) -> dict[str, str]:
    return {"status": error.status().removeprefix("StatusCode."), "message": error.message()}


def outcome(ask: Callable[[], Any]) -> Any:  # noqa: ANN401 (as above)
    try:
        return ask()
    except InferenceServerException as error:
        return failure(error)


def versions_of(client: Any) -> list[dict[str, str]]:  # noqa: ANN401 (as above)
    index = client.get_model_repository_index()
    if isinstance(index, list):
        return index
    fields = ("name", "version", "state", "reason")
    return [{field: getattr(each, field) for field in fields} for each in index.models]


def facts_of(client: Any, protocol: str) -> dict[str, Any]:  # noqa: ANN401 (as above)
    def each(ask: Callable[..., Any]) -> list[Any]:
        return [outcome(partial(ask, name, version)) for name, version in ABSENT]

    form = {"as_json": True} if protocol == "grpc" else {}
    configs = {name: client.get_model_config(name, **form) for name in NAMES}
    return {
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "model_ready": [
            client.is_model_ready(*asked) for asked in ((MODEL,), (MODEL, "1"), NAMES[1:])
        ],
        "absent_ready": each(client.is_model_ready),
        "no_version": outcome(lambda: client.is_model_ready(MODEL, "latest")),
        "server": client.get_server_metadata(**form),
        "metadata": {name: client.get_model_metadata(name, **form) for name in NAMES},
        "absent_metadata": each(client.get_model_metadata),
        "config": {name: each.get("config", each) for name, each in configs.items()},
        "absent_config": each(client.get_model_config),
        "index": versions_of(client),
        "load": [outcome(partial(ask, MODEL)) for ask in (client.load_model, client.unload_model)],
    }


async def aio_facts_of(client: Any, protocol: str) -> dict[str, Any]:  # noqa: ANN401 (as above)
    form = {"as_json": True} if protocol == "grpc" else {}
    return {
        "live": await client.is_server_live(),
        "ready": await client.is_server_ready(),
        "server": await client.get_server_metadata(**form),
        "metadata": {name: await client.get_model_metadata(name, **form) for name in NAMES},
    }


async def call_asynchronously(
    address: str, protocol: str, calls: dict[str, Any], arrays: dict[str, np.ndarray]
) -> tuple[dict[str, Any], Answers]:
    answers: Answers = ({}, {})
    async with AIO_MODULES[protocol].InferenceServerClient(address) as client:
        facts = await aio_facts_of(client, protocol)
        for name, call in calls.items():
            try:
                inputs = inputs_of(call, arrays, protocol)
                result = await client.infer(inputs=inputs, **options_of(call, protocol))
            except InferenceServerException as error:
                answers[0][name] = failure(error)
            else:
                keep(name, result, answers)
    return facts, answers


def call_synchronously(
    address: str, protocol: str, calls: dict[str, Any], arrays: dict[str, np.ndarray]
) -> tuple[dict[str, Any], Answers]:
    answers: Answers = ({}, {})
    with MODULES[protocol].InferenceServerClient(address) as client:
        facts = facts_of(client, protocol)
        for name, call in calls.items():
            try:
                inputs = inputs_of(call, arrays, protocol)
                result = client.infer(inputs=inputs, **options_of(call, protocol))
            except InferenceServerException as error:
                answers[0][name] = failure(error)
            else:
                keep(name, result, answers)
    return facts, answers


def main() -> None:
    folder = Path(sys.argv[1])
    plan = json.loads((folder / "calls.json").read_text())
    arrays = dict(np.load(folder / "arrays.npz"))
    calls: dict[str, Any] = {}
    found: dict[str, np.ndarray] = {}
    facts: dict[str, Any] = {"calls": calls, "facts": {}}
    facts["protos"] = [
        base64.b64encode(module.DESCRIPTOR.serialized_pb).decode()
        for module in (model_config_pb2, service_pb2)
    ]
    for protocol, address in plan["addresses"].items():
        arguments = (address, protocol, plan["calls"], arrays)
        seen = {
            protocol: call_synchronously(*arguments),
            f"{protocol}.aio": asyncio.run(call_asynchronously(*arguments)),
        }
        for way, (known, (answers, kept)) in seen.items():
            facts["facts"][way], calls[way] = known, answers
            found |= {f"{way}/{name}": array for name, array in kept.items()}
    (folder / "answers.json").write_text(json.dumps(facts))
    np.savez(folder / "answers.npz", allow_pickle=False, **found)


if __name__ == "__main__":
    main()
