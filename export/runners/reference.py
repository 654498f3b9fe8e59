"""onnx.reference: the ONNX standard's own evaluator, in NumPy; an oracle of what the file means."""

from typing import Any

import onnx
from onnx.reference import ReferenceEvaluator

from export.architecture import Runtime
from export.errors import RuntimeUnavailableError
from export.runners.onnx import OnnxRunner


class OnnxReferenceRunner(OnnxRunner):
    """Evaluates the ONNX files operation by operation: slow, and for comparisons alone."""

    runtime: Runtime = "onnx-reference"

    def _choose_provider(self) -> str:
        if (self.device, self.precision) != ("cpu", "float32"):
            raise RuntimeUnavailableError("onnx.reference computes in float32 on the CPU alone")
        return "onnx.reference"

    def _load(self, model: bytes) -> Any:  # noqa: ANN401 (as the runner of ONNX Runtime)
        return ReferenceEvaluator(onnx.load_from_string(model))
