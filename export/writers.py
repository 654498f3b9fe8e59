"""Write a network's weights in the form of each runtime."""

import io
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any
from zipfile import ZipFile

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save

from export.architecture import Stage
from export.bundle.manifest import (
    ONNX_FILE,
    ONNX_INTERVENTIONS_FILE,
    ONNX_TRACE_FILE,
    PT2_FILE,
    TORCHSCRIPT_FILE,
    VECTORS_FILE,
    WEIGHTS_FILE,
)
from export.network import network_of
from export.parity.vectors import write_vectors
from export.runtimes.changes import NONE, change_input, changed_value
from export.runtimes.torchscript_notice import torchscript_notice_filtered

ONNX_OPSET = 17  # old enough for every runtime of the last years; these operations have not changed
ONNX_IR_VERSION = 8  # the one that came with opset 17

FLAT = "flat"  # the shape [-1]
TYPES_OF_CHANGES = {"int64": TensorProto.INT64, "float32": TensorProto.FLOAT}

Weights = Mapping[str, np.ndarray]


def write_all(
    stages: Sequence[Stage], weights: Weights, low: float, high: float
) -> dict[str, bytes]:
    """Return the content of every model file by its name; pixels are in low..high."""
    return {
        WEIGHTS_FILE: write_weights(weights),
        ONNX_FILE: write_onnx(stages, weights, traced=False),
        ONNX_TRACE_FILE: write_onnx(stages, weights, traced=True),
        ONNX_INTERVENTIONS_FILE: write_onnx_interventions(stages, weights),
        TORCHSCRIPT_FILE: write_torchscript(stages, weights),
        PT2_FILE: write_pt2(stages, weights),
        VECTORS_FILE: write_vectors(stages, weights, low, high),
    }


def write_weights(weights: Weights) -> bytes:
    """Return the parameters as safetensors; the same bits give the same bytes."""
    return save(dict(weights))


def write_torchscript(stages: Sequence[Stage], weights: Weights) -> bytes:
    """Return the scripted network; `forward` gives the logits, `trace` every value by name."""
    buffer = io.BytesIO()
    with torchscript_notice_filtered():
        torch.jit.save(torch.jit.script(network_of(stages, weights)), buffer)
    return _without_debug_files(buffer.getvalue())


def _without_debug_files(archive: bytes) -> bytes:
    """Return the zip archive without the files that name source code on this machine."""
    buffer = io.BytesIO()
    with ZipFile(io.BytesIO(archive)) as written, ZipFile(buffer, "w") as kept:
        for entry in written.infolist():
            if not entry.filename.endswith(".debug_pkl"):
                kept.writestr(entry, written.read(entry))
    return buffer.getvalue()


def write_pt2(stages: Sequence[Stage], weights: Weights) -> bytes:
    """Return the exported program; it gives the logits of a batch of any size.

    Each node knows the layer that it came from, so that a runner can find every
    stage in it; the stack traces, which name source code, are left out.
    """
    images = torch.zeros(2, *stages[0].shape)  # torch.export takes 0 and 1 for constants
    program = torch.export.export(
        network_of(stages, weights), (images,), dynamic_shapes=({0: torch.export.Dim("N")},)
    )
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    return buffer.getvalue()


def write_onnx(stages: Sequence[Stage], weights: Weights, *, traced: bool) -> bytes:
    """Return the ONNX model, built from the weights and checked by onnx.

    Its input is the value of the first stage, [N, H, W]. Its outputs are the
    logits, and if `traced` the value of every stage but the input. The untraced
    model is a file of its own, in which a runtime may fuse operations whose values
    are not outputs.
    """
    outputs = {stage.values["onnx"]: stage for stage in (stages[1:] if traced else stages[-1:])}
    nodes = [_node(before, stage) for before, stage in pairwise(stages) if _computes(stage)]
    return _onnx_model(
        nodes, [_value_info(stages[0])], [_value_info(stage) for stage in outputs.values()], weights
    )


def write_onnx_interventions(stages: Sequence[Stage], weights: Weights) -> bytes:
    """Return the ONNX model of a trace whose stages can be changed (export/runtimes/changes.py).

    Beside the images, its inputs are the changes of each stage that computes something, [K] each,
    K from 0 on. Its outputs are the changed values of all stages.
    """
    nodes: list[onnx.NodeProto] = []
    inputs, outputs = [_value_info(stages[0])], []
    for before, stage in pairwise([stages[0], *stages]):
        if not _computes(stage):
            continue
        if stage is not stages[0]:
            node = _node(before, stage)
            node.input[0] = changed_value(before.values["onnx"])
            nodes.append(node)
        nodes += _change(stage)
        inputs += _change_inputs(stage)
        outputs.append(_value_info(stage, changed_value(stage.values["onnx"])))
    return _onnx_model(nodes, inputs, outputs, weights, {FLAT: np.array([-1])})


def _onnx_model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    weights: Weights,
    constants: Weights | None = None,
) -> bytes:
    graph = helper.make_graph(
        nodes,
        "forward",
        inputs,
        outputs,
        [
            numpy_helper.from_array(np.ascontiguousarray(array), name)
            for name, array in {**weights, **(constants or {})}.items()
        ],
    )
    model = helper.make_model(
        graph,
        producer_name="forward",
        opset_imports=[helper.make_opsetid("", ONNX_OPSET)],
        ir_version=ONNX_IR_VERSION,
    )
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


def _change(stage: Stage) -> list[onnx.NodeProto]:
    """Return the nodes that change a stage's value: of its flat elements, K are replaced."""
    value, name = stage.values["onnx"], stage.name

    def of(step: str) -> str:
        return f"{value}.{step}"

    def given(part: str) -> str:
        return change_input(name, part)

    steps: list[tuple[str, list[str], str, dict[str, Any]]] = [
        ("Shape", [value], of("shape"), {}),
        ("Reshape", [value, FLAT], of("flat"), {}),
        ("Gather", [of("flat"), given("source")], of("taken"), {"axis": 0}),
        ("Mul", [of("taken"), given("scale")], of("scaled"), {}),
        ("Add", [of("scaled"), given("shift")], of("shifted"), {}),
        ("Max", [of("shifted"), given("low")], of("raised"), {}),
        ("Min", [of("raised"), given("high")], of("bounded"), {}),
        ("ScatterElements", [of("flat"), given("at"), of("bounded")], of("scattered"), {"axis": 0}),
        ("Reshape", [of("scattered"), of("shape")], changed_value(value), {}),
    ]
    return [
        helper.make_node(operation, inputs, [output], name=output, **attributes)
        for operation, inputs, output, attributes in steps
    ]


def _change_inputs(stage: Stage) -> list[onnx.ValueInfoProto]:
    count = change_input(stage.name, "K")
    return [
        helper.make_tensor_value_info(
            change_input(stage.name, part), TYPES_OF_CHANGES[array.dtype.name], [count]
        )
        for part, array in NONE._asdict().items()
    ]


def _computes(stage: Stage) -> bool:
    return stage.operation != "Output"


def _node(before: Stage, stage: Stage) -> onnx.NodeProto:
    inputs, outputs = [before.values["onnx"]], [stage.values["onnx"]]
    if stage.operation == "Linear":  # Gemm: x·Wᵀ + b
        inputs += [f"{stage.name}.weight", f"{stage.name}.bias"]
        return helper.make_node("Gemm", inputs, outputs, name=stage.name, transB=1)
    if stage.operation == "Flatten":
        return helper.make_node("Flatten", inputs, outputs, name=stage.name, axis=1)
    return helper.make_node("Relu", inputs, outputs, name=stage.name)


def _value_info(stage: Stage, name: str = "") -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(
        name or stage.values["onnx"], TensorProto.FLOAT, ["N", *stage.shape]
    )
