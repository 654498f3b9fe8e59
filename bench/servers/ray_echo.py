"""What Ray Serve's own gRPC costs: bytes answered by a plain deployment, in one replica.

Run as `python -m bench.servers.ray_echo ADDRESS PORT HTTP_PORT`, an address of a cluster; says when
it is ready, and serves until the end of standard input.
"""

import sys
from typing import Any

import grpc
import ray
from google.protobuf.wrappers_pb2 import BytesValue
from ray import serve
from ray.serve.config import HTTPOptions
from ray.serve.config import gRPCOptions as GrpcOptions

METHOD = "/bench.Echo/Echo"
ANSWER_BYTES = 80  # of a Predict of one image


class Echo:
    """Answers every message with as many bytes as an answer of Predict has."""

    async def Echo(self, _request: BytesValue) -> BytesValue:  # noqa: N802 (as in a proto)
        """Answer."""
        return BytesValue(value=bytes(ANSWER_BYTES))


def add_echo(servicer: Any, server: Any) -> None:  # noqa: ANN401 (as generated code has it)
    """Add the service, as generated code does; Ray calls it."""
    handler = grpc.unary_unary_rpc_method_handler(
        servicer.Echo, BytesValue.FromString, BytesValue.SerializeToString
    )
    service, method = METHOD.strip("/").split("/")
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(service, {method: handler}),)
    )


def main() -> None:
    """Serve until the end of standard input."""
    address, port, http_port = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    ray.init(address=address, log_to_driver=False)
    functions = ["bench.servers.ray_echo:add_echo"]
    serve.start(
        http_options=HTTPOptions(port=http_port),
        grpc_options=GrpcOptions(port=port, grpc_servicer_functions=functions),
    )
    deployment: Any = serve.deployment(Echo)
    serve.run(deployment.options(max_ongoing_requests=1000).bind(), name="echo")
    print("ready", flush=True)
    sys.stdin.read()
    serve.shutdown()  # type: ignore[no-untyped-call] # Ray gives it no types
    ray.shutdown()


if __name__ == "__main__":
    main()
