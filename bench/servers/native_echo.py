"""The floor of the native transport: a handler of Python's that answers bytes with bytes.

Run as `python -m bench.servers.native_echo ANSWER_BYTES`; prints its port.
"""

import asyncio
import sys

import grpc
import uvloop

from server.config import ServerSettings
from server.observability.calls import CallObserver
from server.observability.metrics import ServerMetrics
from server.transport.native.extension import open_extension
from server.transport.native.options import Answering, ConnectionLimits, build_native_server

# Under a path that the transport knows to be unary, as all of Forward's are.
SERVICE, METHOD = "forward.v1.ForwardService", "Predict"
LIMITS = ConnectionLimits(max_request_bytes=16 * 2**20, max_connections=1000)


async def serve(answer: bytes) -> None:
    """Answer every call with `answer` until the process is ended."""

    async def echo(_request: bytes, _context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        return answer

    handler = grpc.method_handlers_generic_handler(
        SERVICE, {METHOD: grpc.unary_unary_rpc_method_handler(echo)}
    )
    settings = ServerSettings.model_validate({})
    native = open_extension(settings.max_queue_images)
    answering = Answering([handler], CallObserver(ServerMetrics()))
    server = build_native_server(native, answering, settings, LIMITS)
    port = server.listen("127.0.0.1", 0)
    await server.start()
    print(port, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve(bytes(int(sys.argv[1]))))
