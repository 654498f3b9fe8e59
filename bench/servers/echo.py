"""The floor: a bare grpc.aio server on uvloop that answers bytes with bytes of an answer's size.

Run as `python -m bench.servers.echo ANSWER_BYTES`; prints its port.
"""

import sys

import grpc
import uvloop


async def serve(answer: bytes) -> None:
    """Answer every call with `answer` until the process is ended."""

    async def echo(_request: bytes, _context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        return answer

    handler = grpc.method_handlers_generic_handler(
        "bench.Echo", {"Echo": grpc.unary_unary_rpc_method_handler(echo)}
    )
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1)])
    server.add_generic_rpc_handlers((handler,))
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(serve(bytes(int(sys.argv[1]))))
