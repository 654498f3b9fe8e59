"""A server without batching: grpc.aio on plain asyncio, ONNX Runtime inline on one thread.

Run as `python -m bench.servers.inline`; prints its port.
"""

import asyncio

import grpc
import onnxruntime

from bench.servers.tutorial import MODEL, answer
from forward.v1 import forward_pb2 as pb
from forward.v1 import forward_pb2_grpc


class InlineService(forward_pb2_grpc.ForwardServiceServicer):
    """Answers Predict."""

    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(MODEL, options)

    async def Predict(  # noqa: N802 (gRPC's name)
        self, request: pb.PredictRequest, _context: object
    ) -> pb.PredictResponse:
        """Compute on the event loop."""
        return answer(self._session, request)


async def serve() -> None:
    """Serve until the process is ended."""
    server = grpc.aio.server()
    service = InlineService()  # type: ignore[abstract] # the other methods stay unimplemented
    forward_pb2_grpc.add_ForwardServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(serve())
