"""An unchanged tritonclient, in a process and an environment of its own, against a real server."""

import base64
import json
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import pytest
from google.protobuf import descriptor_pb2

from export.bundle import Bundle
from forward_client import ForwardClient
from forward_client.messages import Detail
from inference import open_inference_pb2 as oip
from tests.support.bundles import REPOSITORY, random_images
from tests.support.servers import RunningServer

CALL_SECONDS = 120
STAGES = ("input", "flatten", "linear1", "relu", "linear2", "output")
FLOATS = random_images(3, (28, 28), seed=4)
BYTES = np.round(FLOATS * 255).astype(np.uint8)
HOLE = FLOATS.copy()
HOLE[1, 2, 3] = np.nan
ARRAYS = {
    "floats": FLOATS,
    "bytes": BYTES,
    "one": BYTES[0],
    "rows": BYTES.reshape(3, 784),
    "doubles": FLOATS.astype(np.float64),
    "hole": HOLE,
    "unscaled": FLOATS * np.float32(255),
    "most": np.zeros((1024, 28, 28), np.uint8),
    "many": np.zeros((1025, 28, 28), np.uint8),
}


def call(array: str = "bytes", *outputs: str, classes: int = 0, **options: Any) -> dict[str, Any]:  # noqa: ANN401 (JSON)
    named = [{"array": array, **options.pop("input", {})}]
    wanted = [[output, classes] for output in outputs]
    return {"inputs": options.pop("inputs", named), "outputs": wanted, **options}


TRACE = "mnist_trace"
GOOD = {
    "bytes": call("bytes"),
    "floats": call("floats"),
    "logits": call("bytes", "logits", id="request-7", version="1"),
    "every stage": call("floats", *STAGES, "logits"),
    "another order": call("bytes", "logits", "relu", "input"),
    "every output": call("floats", model=TRACE),
    "logits of the trace": call("bytes", "logits", model=TRACE),
    "compressed": call("bytes", compression="gzip"),
    "deflated": call("floats", "input", "logits", compression="deflate"),
    "JSON": call("floats", "linear1", "logits", text=True),
    "JSON of bytes": call("bytes", "relu", text=True, model=TRACE),
    "parameters": call("bytes", parameters={"custom": 1, "another": "text"}),
    "largest batch": call("most"),
    "top 3": call("bytes", "logits", classes=3),
    "top 1000": call("bytes", "output", classes=1000),
    "top units": call("bytes", "relu", classes=2),
    "top 2 in JSON": call("bytes", "logits", classes=2, text=True),
}
BAD = {
    "a model that is not there": (
        call(model="other"),
        "NOT_FOUND",
        ["'other'", "this server has 'mnist' version 1 and 'mnist_trace' version 1"],
    ),
    "a version that is not there": (call(version="7"), "NOT_FOUND", ["version 7", "version 1"]),
    "a version that is no number": (
        call(version="latest"),
        "INVALID_ARGUMENT",
        ["model_version: expected a whole number from 1 on, or nothing, got 'latest'"],
    ),
    "a wrong input name": (
        call(input={"name": "input"}),
        "INVALID_ARGUMENT",
        ["inputs[0].name: expected 'images', got 'input'"],
    ),
    "no input": (call(inputs=[]), "INVALID_ARGUMENT", ["inputs: expected one, 'images', got 0"]),
    "an input twice": (
        call(inputs=[{"array": "bytes"}, {"array": "bytes"}]),
        "INVALID_ARGUMENT",
        ["inputs[1].name: 'images' is named twice"],
    ),
    "rows for images": (
        call("rows"),
        "INVALID_ARGUMENT",
        ["inputs[0].shape: expected [N, 28, 28], got [3, 784]; send the rows as they are"],
    ),
    "no batch": (
        call("one"),
        "INVALID_ARGUMENT",
        ["inputs[0].shape: expected [N, 28, 28], got [28, 28]; one image has N = 1"],
    ),
    "too many images": (
        call("many"),
        "INVALID_ARGUMENT",
        ["inputs[0].shape: expected 1 to 1024 images, got 1025; split the batch"],
    ),
    "doubles": (
        call("doubles"),
        "INVALID_ARGUMENT",
        ["inputs[0].datatype: expected FP32 or UINT8, got 'FP64'"],
    ),
    "another shape than the data's": (
        call("bytes", input={"shape": [2, 28, 28]}),
        "INVALID_ARGUMENT",
        ["raw_input_contents[0]: expected 1568 bytes for UINT8 of shape [2, 28, 28], got 2352"],
    ),
    "NaN": (call("hole"), "INVALID_ARGUMENT", ["raw_input_contents[0]: expected finite", "1 NaN"]),
    "pixels up to 255": (call("unscaled"), "INVALID_ARGUMENT", ["send UINT8 or divide by 255"]),
    "an unknown output": (
        call("bytes", "softmax"),
        "INVALID_ARGUMENT",
        ["outputs[0].name: expected one of logits, input, flatten,", "got 'softmax'"],
    ),
    "an output twice": (
        call("bytes", "relu", "relu"),
        "INVALID_ARGUMENT",
        ["outputs[1].name: 'relu' is named twice"],
    ),
    "classes fewer than one": (
        call("bytes", "logits", classes=-1),
        "INVALID_ARGUMENT",
        ["outputs[0].parameters: 'classification' expected a whole number of 1 or more", "-1"],
    ),
    "an answer over the limit": (
        call("most", "input", "flatten"),
        "INVALID_ARGUMENT",
        ["outputs: the response needs up to", "allowed are 4194304; send fewer images"],
    ),
    "every output of too many images": (
        call("most", model=TRACE),
        "INVALID_ARGUMENT",
        ["outputs: the response needs up to", "allowed are 4194304; send fewer images"],
    ),
    "several faults": (
        call("rows", "softmax", input={"name": "x"}),
        "INVALID_ARGUMENT",
        ["inputs[0].name", "inputs[0].shape", "outputs[0].name"],
    ),
}
PROTOCOLS = ("grpc", "http")
WAYS = tuple(f"{protocol}{kind}" for protocol in PROTOCOLS for kind in ("", ".aio"))
COMMON = ["classification", "model_configuration", "statistics", "model_repository(index)"]
EXTENSIONS = {
    "grpc": COMMON,
    "http": [*COMMON, "binary_tensor_data"],
}
HTTP_STATUS = {"INVALID_ARGUMENT": "400", "NOT_FOUND": "404", "UNIMPLEMENTED": "404"}


def status_of(way: str, status: str) -> str:
    """Return a status as a client of that way sees it."""
    return HTTP_STATUS[status] if way.startswith("http") else status


def text_of(way: str, text: str) -> str:
    """Return a part of an error with the names that a protocol has for the fields."""
    return (
        text.replace("raw_input_contents[0]", "inputs[0].data") if way.startswith("http") else text
    )


@dataclass(frozen=True)
class Seen:
    """What a user of tritonclient saw."""

    facts: dict[str, Any]
    calls: dict[str, Any]
    protos: list[str]
    arrays: dict[str, np.ndarray]

    def answer(self, way: str, name: str) -> dict[str, Any]:
        """Return a call's answer without its values, or its error."""
        answer: dict[str, Any] = self.calls[way][name]
        return answer


@pytest.fixture(scope="module")
def seen(
    served: RunningServer, triton_python: str, tmp_path_factory: pytest.TempPathFactory
) -> Seen:
    """What tritonclient got for every call of this file."""
    folder = tmp_path_factory.mktemp("triton")
    calls = {**GOOD, **{name: bad for name, (bad, _, _) in BAD.items()}}
    addresses = {"grpc": served.address, "http": served.http_address}
    plan = {"addresses": addresses, "calls": calls}
    (folder / "calls.json").write_text(json.dumps(plan))
    np.savez(folder / "arrays.npz", allow_pickle=False, **ARRAYS)
    script = REPOSITORY / "tests" / "support" / "triton_calls.py"
    done = subprocess.run(
        [triton_python, "-I", script, folder],
        capture_output=True,
        text=True,
        timeout=CALL_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((folder / "answers.json").read_text())
    arrays = dict(np.load(folder / "answers.npz"))
    return Seen(found["facts"], found["calls"], found["protos"], arrays)


@pytest.mark.parametrize("way", WAYS)
def test_the_server_is_live_and_ready(seen: Seen, way: str) -> None:
    assert seen.facts[way]["live"] is True
    assert seen.facts[way]["ready"] is True


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_model_is_ready_under_both_names(seen: Seen, protocol: str) -> None:
    assert seen.facts[protocol]["model_ready"] == [True, True, True]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_unknown_models_are_not_ready(seen: Seen, protocol: str) -> None:
    assert seen.facts[protocol]["absent_ready"] == [False, False]


def test_a_version_that_is_no_number_is_not_ready(seen: Seen) -> None:
    assert seen.facts["grpc"]["no_version"]["status"] == "INVALID_ARGUMENT"
    assert seen.facts["http"]["no_version"] is False  # all that this client tells


@pytest.mark.parametrize("way", WAYS)
def test_server_metadata_has_name_version_and_extensions(seen: Seen, way: str) -> None:
    assert seen.facts[way]["server"] == {
        "name": "forward",
        "version": version("forward-server"),
        "extensions": EXTENSIONS[way.partition(".")[0]],
    }


def numbers(shape: list[str | int]) -> list[int]:
    """Return a shape, whose sizes protobuf's JSON has as texts."""
    return [int(size) for size in shape]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["mnist", TRACE])
def test_metadata_lists_logits_and_for_the_trace_every_stage(
    seen: Seen, bundle: Bundle, way: str, name: str
) -> None:
    shapes = {stage.name: stage.shape for stage in bundle.manifest.stages}
    assert tuple(shapes) == STAGES
    outputs = {"logits": (10,), **(shapes if name == TRACE else {})}
    metadata = seen.facts[way]["metadata"][name]
    for tensor in (*metadata["inputs"], *metadata["outputs"]):
        tensor["shape"] = numbers(tensor["shape"])
    assert metadata == {
        "name": name,
        "versions": ["1"],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "images", "datatype": "UINT8", "shape": [-1, 28, 28]}],
        "outputs": [
            {"name": name, "datatype": "FP32", "shape": [-1, *shape]}
            for name, shape in outputs.items()
        ],
    }


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", ["mnist", TRACE])
def test_the_configuration_equals_the_metadata_per_image(
    seen: Seen, protocol: str, name: str
) -> None:
    metadata, config = (seen.facts[protocol][kind][name] for kind in ("metadata", "config"))
    assert (config["name"], config["platform"]) == (name, metadata["platform"])
    assert config["backend"] == "onnxruntime"
    for side in ("input", "output"):
        assert [{**each, "dims": numbers(each["dims"])} for each in config[side]] == [
            {
                "name": each["name"],
                "data_type": f"TYPE_{each['datatype']}",
                "dims": numbers(each["shape"][1:]),
            }
            for each in metadata[f"{side}s"]
        ]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_metadata_of_unknown_models_is_not_found(seen: Seen, protocol: str) -> None:
    facts = seen.facts[protocol]
    for failure in (*facts["absent_metadata"], *facts["absent_config"]):
        assert failure["status"] == status_of(protocol, "NOT_FOUND")
        assert "this server has 'mnist' version 1 and 'mnist_trace'" in failure["message"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_index_lists_the_served_version(seen: Seen, protocol: str) -> None:
    names = [entry["name"] for entry in seen.facts[protocol]["index"]]
    assert names == ["mnist", TRACE]
    for entry in seen.facts[protocol]["index"]:
        assert (entry["version"], entry["state"]) == ("1", "READY")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_load_and_unload_are_unimplemented(seen: Seen, protocol: str) -> None:
    for failure in seen.facts[protocol]["load"]:
        assert failure["status"] == status_of(protocol, "UNIMPLEMENTED")


def outputs_of(
    client: ForwardClient, images: np.ndarray, names: Sequence[str]
) -> dict[str, np.ndarray]:
    """Return what Predict and Trace say of outputs."""
    found = {"logits": client.predict(images).logits}
    stages: dict[str, Detail] = dict.fromkeys(set(names) - {"logits"}, "full")
    for stage in client.trace(images, stages).stages if stages else ():
        assert stage.values is not None
        found[stage.name] = stage.values
    return found


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", [name for name in GOOD if not name.startswith("top")])
def test_outputs_equal_predict_and_trace_bit_for_bit(
    seen: Seen, client: ForwardClient, way: str, name: str
) -> None:
    request, answer = GOOD[name], seen.answer(way, name)
    images = ARRAYS[request["inputs"][0]["array"]]
    model = request.get("model", "mnist")
    listed = ["logits", *STAGES] if model == TRACE else ["logits"]
    wanted = [output for output, _ in request["outputs"]] or listed
    assert answer["outputs"] == [[output, "FP32"] for output in wanted]
    assert (answer["model"], answer["version"]) == (model, "1")
    assert answer["id"] == request.get("id", "")
    expected = outputs_of(client, images, wanted)
    for output in wanted:
        values = seen.arrays[f"{way}/{name}/{output}"]
        assert values.shape == expected[output].shape
        assert values.tobytes() == expected[output].tobytes()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", [name for name in GOOD if name.startswith("top")])
def test_classes_have_value_index_and_label(
    seen: Seen, client: ForwardClient, bundle: Bundle, way: str, name: str
) -> None:
    ((output, count),) = GOOD[name]["outputs"]
    labels = bundle.manifest.labels if output in {"logits", "output"} else None
    expected = []
    for row in outputs_of(client, BYTES, [output])[output]:
        order = sorted(range(len(row)), key=lambda index: (-row[index], index))[:count]
        classes = [f"{float(row[index]):.6f}:{index}" for index in order]
        if labels:
            classes = [f"{each}:{labels[at]}" for each, at in zip(classes, order, strict=True)]
        expected.append(classes)
    answer = seen.answer(way, name)
    assert answer["outputs"] == [[output, "BYTES"]]
    assert answer["classes"] == {output: expected}
    assert len(expected) == 3


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", BAD)
def test_an_invalid_call_gets_every_violation(seen: Seen, way: str, name: str) -> None:
    _, status, texts = BAD[name]
    failure = seen.answer(way, name)
    assert failure.get("status") == status_of(way, status), failure
    for text in texts:
        assert text_of(way, text) in failure["message"]


def _fields(
    messages: Any,  # noqa: ANN401 (repeated DescriptorProto)
    path: str = "",
) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Yield every field with all that its bytes on the wire depend on."""
    for message in messages:
        name = f"{path}.{message.name}"
        for field in message.field:
            kind = (field.number, field.type, field.type_name, field.label)
            yield f"{name}.{field.name}", (*kind, field.HasField("oneof_index"))
        yield from _fields(message.nested_type, name)


def test_the_proto_is_compatible_with_tritonclient(seen: Seen) -> None:
    theirs = [
        descriptor_pb2.FileDescriptorProto.FromString(base64.b64decode(each))
        for each in seen.protos
    ]
    ours = descriptor_pb2.FileDescriptorProto.FromString(oip.DESCRIPTOR.serialized_pb)
    fields = dict(_fields(ours.message_type))
    known = {name: kind for file in theirs for name, kind in _fields(file.message_type)}
    assert len(fields) > 60
    assert {name: known.get(name) for name in fields} == fields
    methods = {
        each.name: (each.input_type, each.output_type)
        for service in theirs[1].service
        for each in service.method
    }
    for method in ours.service[0].method:
        assert methods[method.name] == (method.input_type, method.output_type)
    (types,) = (each for each in theirs[0].enum_type if each.name == "DataType")
    numbers = {each.name: each.number for each in types.value}
    assert {each.name: numbers[each.name] for each in ours.enum_type[0].value} == {
        each.name: each.number for each in ours.enum_type[0].value
    }
    assert (ours.package, ours.service[0].name) == (theirs[1].package, theirs[1].service[0].name)
