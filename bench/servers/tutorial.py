"""What a user would write from gRPC's Python tutorial: ten threads, ONNX Runtime with its defaults.

Run as `python -m bench.servers.tutorial`; prints its port.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import onnxruntime

from forward.v1 import forward_pb2 as pb
from forward.v1 import forward_pb2_grpc

MODEL = "models/mnist/1/model.onnx"


def answer(session: Any, request: pb.PredictRequest) -> pb.PredictResponse:  # noqa: ANN401 (onnxruntime has no types)
    """Compute a request at once, by itself."""
    tensor = request.images
    if tensor.dtype == pb.DATA_TYPE_UINT8:
        pixels = np.frombuffer(tensor.data, np.uint8) / np.float32(255)
    else:
        pixels = np.frombuffer(tensor.data, np.float32)
    (logits,) = session.run(["logits"], {"images": pixels.reshape(-1, 28, 28)})
    shape, data = logits.shape, logits.tobytes()
    return pb.PredictResponse(
        logits=pb.Tensor(dtype=pb.DATA_TYPE_FLOAT32, shape=shape, data=data),
        model=pb.ModelIdentity(name="mnist", version=1, runtime="onnx"),
    )


class TutorialService(forward_pb2_grpc.ForwardServiceServicer):
    """Answers Predict."""

    def __init__(self) -> None:
        self._session = onnxruntime.InferenceSession(MODEL)

    def Predict(  # noqa: N802 (gRPC's name)
        self, request: pb.PredictRequest, _context: object
    ) -> pb.PredictResponse:
        """Compute in the thread of the call."""
        return answer(self._session, request)


def serve() -> None:
    """Serve until the process is ended."""
    server = grpc.server(ThreadPoolExecutor(max_workers=10))
    service = TutorialService()  # type: ignore[abstract] # the other methods stay unimplemented
    forward_pb2_grpc.add_ForwardServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    serve()
