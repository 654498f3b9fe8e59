"""Calls of methods that are not there: refused as gRPC itself would, but seen."""

from typing import Any

import grpc

from server.errors import MethodNotFoundError
from server.observability.call_metrics import UNKNOWN_METHOD
from server.observability.calls import CallObserver
from server.observability.request_id import read_identity
from server.transport.grpc.ending import fail


class UnknownMethods(grpc.GenericRpcHandler):
    """Takes every call; to be asked after all other handlers."""

    def __init__(self, observer: CallObserver) -> None:
        self._observer = observer
        # Of a stream, whatever the method is: no request is waited for.
        self._handler: Any = grpc.stream_stream_rpc_method_handler(self._refuse)

    def service(self, _details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[Any, Any]":
        """Return what refuses a call."""
        return self._handler

    async def _refuse(self, _requests: object, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        identity = read_identity(context.invocation_metadata() or ())
        record = self._observer.begin(UNKNOWN_METHOD, "grpc", context.peer, identity)
        await fail(context, MethodNotFoundError(), record, self._observer)
