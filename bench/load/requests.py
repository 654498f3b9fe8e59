"""The requests that are sent."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from bench.load.counters import SERVICE
from forward.v1 import forward_pb2 as pb
from forward_client.messages import tensor_of
from inference import open_inference_pb2 as oip

Method = Literal["Predict", "Trace", "PredictStream", "ModelInfer", "Attribute"]
RELU_UNITS = 128
HALF_OFF = pb.Intervention(stage="relu", units=range(0, RELU_UNITS, 2), zero=True)
INFERENCE_SERVICE = "inference.GRPCInferenceService"


@dataclass(frozen=True)
class Request:
    """One kind of request."""

    method: Method
    images: int
    dtype: Literal["uint8", "float32"] = "uint8"
    detail: Literal["statistics", "full"] = "statistics"  # of Trace
    intervenes: bool = False  # a trace with half of the units of relu off

    @property
    def title(self) -> str:
        """Say what it is, in a table."""
        what = f"{self.method} {self.detail}" if self.method == "Trace" else self.method
        change = ", intervention" if self.intervenes else ""
        return f"{what}{change}, {self.images} {self.dtype}"

    @property
    def path(self) -> str:
        """Return the path of the method."""
        service = INFERENCE_SERVICE if self.method == "ModelInfer" else SERVICE
        return f"/{service}/{self.method}"

    def array(self) -> np.ndarray:
        """Return its images."""
        pixels = np.random.default_rng(0).integers(0, 256, (self.images, 28, 28), np.uint8)
        return pixels if self.dtype == "uint8" else pixels / np.float32(255)

    def message(self) -> bytes:
        """Return it as it travels."""
        if self.method == "ModelInfer":
            return self._inference_message()
        images = tensor_of(self.array())
        if self.method == "Trace":
            detail = pb.DETAIL_FULL if self.detail == "full" else pb.DETAIL_STATISTICS
            interventions = [HALF_OFF] if self.intervenes else []
            request = pb.TraceRequest(images=images, detail=detail, interventions=interventions)
            return request.SerializeToString()
        if self.method == "Attribute":
            return pb.AttributeRequest(images=images).SerializeToString()
        return pb.PredictRequest(images=images).SerializeToString()  # a stream's is the same

    def _inference_message(self) -> bytes:
        """Return it as clients of the Open Inference Protocol send it: raw."""
        images, datatype = self.array(), "UINT8" if self.dtype == "uint8" else "FP32"
        request = oip.ModelInferRequest(model_name="mnist", raw_input_contents=[images.tobytes()])
        request.inputs.add(name="images", datatype=datatype, shape=images.shape)
        return request.SerializeToString()
