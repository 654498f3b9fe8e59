"""A server that answers with messages that a test gives: what no runtime of ours would compute."""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc

from forward.v1 import forward_pb2 as pb

Answer = Callable[[Any], Any]  # of a request


@contextmanager
def start_canned(answers: Mapping[str, Answer]) -> Iterator[str]:
    """Give the address of a server of ForwardService that has these methods alone."""
    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        method: grpc.unary_unary_rpc_method_handler(
            lambda request, _, answer=answer: answer(request),
            getattr(pb, f"{method}Request").FromString,
            lambda response: response.SerializeToString(),
        )
        for method, answer in answers.items()
    }
    server = grpc.server(ThreadPoolExecutor(2))
    service = "forward.v1.ForwardService"
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()
