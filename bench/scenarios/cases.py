"""What is measured: requests, and the callers that send them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from bench.load.counters import SERVICE
from bench.load.h2load import Shape
from client.connection import tensor_of
from forward.v1 import forward_pb2 as pb
from inference import open_inference_pb2 as oip

Method = Literal["Predict", "Trace", "PredictStream", "ModelInfer"]
INFERENCE_SERVICE = "inference.GRPCInferenceService"
STREAM_MESSAGES = 2000
ECHO, TUTORIAL, INLINE, OURS, TRACED = "echo", "tutorial", "inline", "ours", "ours, traced"
UNARY_SERVERS = (ECHO, TUTORIAL, INLINE, OURS)


@dataclass(frozen=True)
class Request:
    """One kind of request."""

    method: Method
    images: int
    dtype: Literal["uint8", "float32"] = "uint8"
    detail: Literal["statistics", "full"] = "statistics"  # of Trace

    @property
    def title(self) -> str:
        """Say what it is, in a table."""
        what = f"{self.method} {self.detail}" if self.method == "Trace" else self.method
        return f"{what}, {self.images} {self.dtype}"

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
            return pb.TraceRequest(images=images, detail=detail).SerializeToString()
        return pb.PredictRequest(images=images).SerializeToString()  # a stream's is the same

    def _inference_message(self) -> bytes:
        """Return it as clients of the Open Inference Protocol send it: raw."""
        images, datatype = self.array(), "UINT8" if self.dtype == "uint8" else "FP32"
        request = oip.ModelInferRequest(model_name="mnist", raw_input_contents=[images.tobytes()])
        request.inputs.add(name="images", datatype=datatype, shape=images.shape)
        return request.SerializeToString()


@dataclass(frozen=True)
class Cell:
    """Requests of one kind, from so many callers, to some of the servers."""

    request: Request
    shape: Shape
    servers: tuple[str, ...]
    note: str = ""

    @property
    def title(self) -> str:
        """Say what it is, in a table."""
        return f"{self.request.title}{self.note}"

    @property
    def callers(self) -> str:
        """Say who calls: connections, and streams on each if there are several."""
        streams = self.shape.callers // self.shape.connections
        if self.shape.connections == self.shape.callers:
            return str(self.shape.callers)
        return f"{self.shape.callers} ({self.shape.connections} x {streams})"

    @property
    def name(self) -> str:
        """Name it, for --only."""
        return f"{self.title}, {self.callers} callers"


ONE, EIGHT, CROWD = Shape(1, 1), Shape(8, 8), Shape(64, 8)
PREDICT_ONE = Request("Predict", 1)
LONE = Cell(PREDICT_ONE, ONE, UNARY_SERVERS)
CROWDED = Cell(PREDICT_ONE, CROWD, UNARY_SERVERS)
LARGE = tuple(
    Cell(Request("Predict", images, dtype), EIGHT, UNARY_SERVERS)
    for images in (64, 512)
    for dtype in ("uint8", "float32")
)
TRACE_LONE = Cell(Request("Trace", 1), ONE, (TRACED,))
TRACE_CROWDED = Cell(Request("Trace", 1), CROWD, (TRACED,))
STREAM = Cell(Request("PredictStream", 1), Shape(1, 1, STREAM_MESSAGES), (OURS,))
INFERS = tuple(  # each beside the same of Predict
    (Cell(Request("ModelInfer", beside.request.images), beside.shape, (OURS,)), beside)
    for beside in (LONE, CROWDED, LARGE[0])
)
AFTER = " after Trace"
AFTER_LONE = Cell(PREDICT_ONE, ONE, (OURS, TRACED), AFTER)
AFTER_CROWDED = Cell(PREDICT_ONE, CROWD, (OURS, TRACED), AFTER)
CELLS: Sequence[Cell] = (
    LONE,
    Cell(PREDICT_ONE, EIGHT, UNARY_SERVERS),
    CROWDED,
    Cell(PREDICT_ONE, Shape(64, 1), UNARY_SERVERS),
    Cell(PREDICT_ONE, Shape(64, 64), UNARY_SERVERS),
    *LARGE,
    STREAM,
    *(cell for cell, _ in INFERS),
    TRACE_LONE,
    TRACE_CROWDED,
    Cell(Request("Trace", 1, detail="full"), ONE, (TRACED,)),
    Cell(Request("Trace", 1, detail="full"), CROWD, (TRACED,)),
    AFTER_LONE,
    AFTER_CROWDED,
)
