"""onnx.reference: the ONNX standard's own evaluator, in NumPy; an oracle of the file's meaning."""

from collections.abc import Iterator
from typing import Any

import onnx
from google.protobuf.message import Message
from onnx.reference import ReferenceEvaluator

from export.architecture import Runtime
from export.errors import RuntimeUnavailableError
from export.runtimes.onnx import OnnxRunner


class OnnxReferenceRunner(OnnxRunner):
    """Evaluates the ONNX files operation by operation: slow, for comparisons only."""

    runtime: Runtime = "onnx-reference"

    def _choose_provider(self) -> str:
        if (self.device, self.precision) != ("cpu", "float32"):
            raise RuntimeUnavailableError("onnx.reference computes in float32 on the CPU alone")
        return "onnx.reference"

    def _load(self, model: bytes) -> Any:  # noqa: ANN401 (as the runner of ONNX Runtime)
        parsed = onnx.load_from_string(model)
        # The evaluator would read the data of a constant from the working directory.
        if external := sorted({tensor.name for tensor in _external_tensors(parsed)}):
            raise ValueError(f"external data: of {', '.join(external)}")
        return ReferenceEvaluator(parsed)


def _external_tensors(message: Message) -> Iterator[onnx.TensorProto]:
    """Yield each tensor, at any depth, whose data are in a file of their own."""
    if isinstance(message, onnx.TensorProto) and message.data_location == message.EXTERNAL:
        yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in (value,) if isinstance(value, Message) else value:
                yield from _external_tensors(part)
