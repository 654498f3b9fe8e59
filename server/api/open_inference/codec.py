"""Requests of the Open Inference Protocol to images and outputs, outputs to its responses."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from export.architecture import Stage
from export.bundle.manifest import Manifest
from inference import open_inference_pb2 as oip
from server.api.open_inference.names import LOGITS, known_outputs, listed_outputs
from server.api.open_inference.requests import VALUE_BYTES, InferRequest, value_bytes
from server.api.sizes import ENTRY_OVERHEAD_BYTES, MAX_VIOLATIONS, STAGE_OVERHEAD_BYTES
from server.engine.activations import largest
from server.engine.images import ImageDecoder, ReceivedTensor, TensorSchema
from server.errors import Violation, quote
from server.limits import RequestLimits

INPUT_NAME = "images"
CLASSIFICATION = "classification"
SHARED_MEMORY = "shared_memory_region"
NUMPY_TYPES: dict[str, np.dtype[Any]] = {"FP32": np.dtype("<f4"), "UINT8": np.dtype("u1")}
CONTENTS = {"FP32": "fp32_contents", "UINT8": "uint_contents"}
CLASS_VALUE_BYTES = 47  # the most that a float32 has as %f


def decode_images(request: InferRequest, decoder: ImageDecoder) -> np.ndarray | list[Violation]:
    """Return the images [N, H, W], raw ones as a view of the request's bytes, or what is wrong."""
    images = _view(request, decoder)
    return _violations(request, decoder) if images is None else images


def _view(request: InferRequest, decoder: ImageDecoder) -> np.ndarray | None:
    """Return the images, or None if anything is wrong."""
    if len(request.inputs) != 1:
        return None
    tensor, raw = request.inputs[0], request.raw_input_contents
    shape, dtype = tuple(tensor.shape[:]), NUMPY_TYPES.get(tensor.datatype)
    if (
        dtype is None
        or tensor.name != INPUT_NAME
        or not decoder.is_batch(shape)
        or SHARED_MEMORY in tensor.parameters
        or tensor.HasField("contents") == bool(raw)
        or len(raw) > 1
    ):
        return None
    violations: list[Violation] = []
    data = raw[0] if raw else _typed_data(tensor, "inputs[0]", violations)
    return None if data is None or violations else decoder.view(shape, dtype, data)


def _violations(request: InferRequest, decoder: ImageDecoder) -> list[Violation]:
    """Return everything that is wrong with the inputs of a request."""
    found: list[Violation] = []
    inputs, raw = request.inputs, request.raw_input_contents
    if raw and len(raw) != len(inputs):
        text = f"expected as many as there are inputs ({len(inputs)}), or none, got {len(raw)}"
        found.append(Violation("raw_input_contents", text))
    first = inputs[:MAX_VIOLATIONS]  # a client may send millions
    named = [index for index, tensor in enumerate(first) if tensor.name == INPUT_NAME]
    if not named and len(inputs) != 1:
        found.append(Violation("inputs", f"expected one, {INPUT_NAME!r}, got {len(inputs)} others"))
    for index, tensor in enumerate(first):
        if tensor.name != INPUT_NAME:
            text = f"expected {INPUT_NAME!r}, got {quote(tensor.name)}"
            found.append(Violation(f"inputs[{index}].name", text))
        elif index != named[0]:
            found.append(Violation(f"inputs[{index}].name", f"{INPUT_NAME!r} is named twice"))
    if named or len(inputs) == 1:
        found += _tensor_violations(request, named[0] if named else 0, decoder)
    return found


def _tensor_violations(request: InferRequest, index: int, decoder: ImageDecoder) -> list[Violation]:
    tensor, raw = request.inputs[index], request.raw_input_contents
    path, dtype = f"inputs[{index}]", tensor.datatype
    form = TensorSchema(
        f"{path}.shape",
        f"{path}.datatype",
        f"raw_input_contents[{index}]",
        NUMPY_TYPES,
        takes_one=False,
    )
    found: list[Violation] = []
    data: bytes | memoryview | None = raw[index] if index < len(raw) else None
    if SHARED_MEMORY in tensor.parameters:
        found.append(no_shared_memory(path))
    if tensor.HasField("contents"):
        if raw:
            text = "expected the elements here or in raw_input_contents, got both"
            found.append(Violation(f"{path}.contents", text))
        else:
            field = CONTENTS.get(dtype, "contents")
            form = replace(form, data=f"{path}.contents.{field}", unit="elements")
            data = _typed_data(tensor, path, found)
    elif not raw:
        text = f"expected the elements of {INPUT_NAME!r} here or in {path}.contents, got none"
        found.append(Violation("raw_input_contents", text))
    name = dtype if dtype in NUMPY_TYPES else quote(dtype)
    return [*found, *decoder.violations(ReceivedTensor(form, tuple(tensor.shape[:]), name, data))]


def _typed_data(
    tensor: oip.ModelInferRequest.InferInputTensor, path: str, found: list[Violation]
) -> bytes | None:
    """Return the elements as bytes; None if they can't be judged as they are."""
    wanted = CONTENTS.get(tensor.datatype)
    if wanted is None:
        return None
    others = [each.name for each, _ in tensor.contents.ListFields() if each.name != wanted]
    if others:
        text = f"expected {wanted} alone for {tensor.datatype}, got {', '.join(others)}"
        found.append(Violation(f"{path}.contents", text))
        return None
    elements = np.array(getattr(tensor.contents, wanted))
    dtype = NUMPY_TYPES[tensor.datatype]
    if dtype == np.uint8 and elements.size and elements.max() > 255:
        text = f"expected values from 0 to 255, got {elements.min()} to {elements.max()}"
        found.append(Violation(f"{path}.contents.{wanted}", text))
    return elements.astype(dtype).tobytes()


def no_shared_memory(path: str) -> Violation:
    """Return what is wrong with an input or output in shared memory."""
    text = "shared memory is not supported; send and take the elements in the messages"
    return Violation(f"{path}.parameters", text)


@dataclass(frozen=True, slots=True)
class WantedOutput:
    """An output that a response has: a stage's values, or the largest of them as classes."""

    name: str
    stage: Stage
    class_count: int = 0  # 0: the values
    labels: Sequence[str] = ()  # of the classes; none: they have no labels
    value_bytes: int = VALUE_BYTES  # that a value takes in the response


def plan_outputs(
    request: InferRequest, manifest: Manifest, violations: list[Violation]
) -> list[WantedOutput]:
    """Return the outputs of a request, all that its model lists if it names none.

    What is wrong with them is appended to `violations`.
    """
    if not request.outputs:
        listed = listed_outputs(manifest, request.model_name)
        return [
            WantedOutput(name, stage, value_bytes=value_bytes(request, name))
            for name, stage in listed.items()
        ]
    logits_stage = manifest.stages[-1]
    known, chosen = known_outputs(manifest), dict[str, WantedOutput]()
    for index, wanted in enumerate(request.outputs):
        path = f"outputs[{index}]"
        stage = known.get(wanted.name)
        class_count = _class_count(wanted, path, violations)
        if SHARED_MEMORY in wanted.parameters:
            violations.append(no_shared_memory(path))
        if stage is None:
            text = f"expected one of {', '.join(known)}, got {quote(wanted.name)}"
            violations.append(Violation(f"{path}.name", text))
        elif wanted.name in chosen:
            text = f"{quote(wanted.name)} is named twice"
            violations.append(Violation(f"{path}.name", text))
        else:
            labels = manifest.labels if stage is logits_stage else ()
            chosen[wanted.name] = WantedOutput(
                wanted.name, stage, class_count, labels, value_bytes(request, wanted.name)
            )
        if len(violations) >= MAX_VIOLATIONS:
            break
    return list(chosen.values())


def _class_count(
    wanted: oip.ModelInferRequest.InferRequestedOutputTensor,
    path: str,
    violations: list[Violation],
) -> int:
    if CLASSIFICATION not in wanted.parameters:  # to read a missing one would make it
        return 0
    parameter = wanted.parameters[CLASSIFICATION]
    kind = parameter.WhichOneof("parameter_choice")
    if kind == "int64_param" and parameter.int64_param > 0:
        return parameter.int64_param
    got = str(parameter.int64_param) if kind == "int64_param" else kind or "no value"
    text = f"{CLASSIFICATION!r} expected a whole number of 1 or more (int64_param), got {got}"
    violations.append(Violation(f"{path}.parameters", text))
    return 0


def are_logits_alone(outputs: Sequence[WantedOutput]) -> bool:
    """Tell if no stage and no classes are wanted."""
    return all(wanted.name == LOGITS and not wanted.class_count for wanted in outputs)


def response_bytes(outputs: Sequence[WantedOutput], images: int) -> int:
    """Return an upper limit of the bytes of the response, from shapes alone."""
    total = STAGE_OVERHEAD_BYTES
    for wanted in outputs:
        size = wanted.stage.size
        total += STAGE_OVERHEAD_BYTES
        if wanted.class_count:
            label_bytes = max((len(label.encode()) for label in wanted.labels), default=0)
            element = CLASS_VALUE_BYTES + len(str(size)) + label_bytes + ENTRY_OVERHEAD_BYTES
            total += images * min(wanted.class_count, size) * element
        else:
            total += images * size * wanted.value_bytes
    return total


def most_images(outputs: Sequence[WantedOutput], limits: RequestLimits) -> int:
    """Return how many images a request for these outputs may have."""
    if are_logits_alone(outputs):
        return limits.max_batch_images
    overhead = response_bytes(outputs, 0)
    image = response_bytes(outputs, 1) - overhead
    return min(limits.max_batch_images, (limits.max_response_bytes - overhead) // image)


def put_outputs(
    outputs: Sequence[WantedOutput],
    values_by_stage: Mapping[str, np.ndarray],
    into: oip.ModelInferResponse,
) -> None:
    """Put the outputs, whose values [N, …] are given by stage, into a response without any."""
    for wanted in outputs:
        values = values_by_stage[wanted.stage.name]
        if wanted.class_count:
            shape, data = classes(values, wanted.class_count, wanted.labels)
            into.outputs.add(name=wanted.name, datatype="BYTES", shape=shape)
        else:
            data = values.tobytes()
            into.outputs.add(name=wanted.name, datatype="FP32", shape=values.shape)
        into.raw_output_contents.append(data)


def classes(values: np.ndarray, count: int, labels: Sequence[str]) -> tuple[tuple[int, ...], bytes]:
    """Return shape and bytes of the largest values of each image as BYTES: value:index:label."""
    positions, found = largest(values, count)
    endings = [f":{index}" for index in range(values[0].size)]
    if labels:
        endings = [f"{ending}:{label}" for ending, label in zip(endings, labels, strict=True)]
    elements = (
        f"{value:f}{endings[index]}".encode()
        for indices, row in zip(positions.tolist(), found.tolist(), strict=True)
        for index, value in zip(indices, row, strict=True)
    )
    return found.shape, b"".join(len(each).to_bytes(4, "little") + each for each in elements)
