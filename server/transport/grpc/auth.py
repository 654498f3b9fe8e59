"""Bearer tokens of gRPC calls."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias

import grpc

from server.errors import UnauthenticatedError
from server.observability.calls import CallObserver
from server.observability.request_id import read_identity
from server.security.tokens import Tokens
from server.transport.grpc.ending import fail

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"  # of the stubs alone generic
Continuation = Callable[[grpc.HandlerCallDetails], Awaitable["Handler | None"]]


class TokenInterceptor(grpc.aio.ServerInterceptor):
    """Lets a call of any service through to its handler if it has a token.

    Args:
        tokens: what it is checked by.
        exempt: services by their full names whose calls need none.
        observer: reports of the refused calls.
    """

    def __init__(self, tokens: Tokens, exempt: Sequence[str], observer: CallObserver) -> None:
        self._tokens = tokens
        self._exempt = tuple(f"/{service}/" for service in exempt)
        self._observer = observer
        observer.metrics.calls.expect_tokens()

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> "Handler | None":
        """Return the call's handler, or one that refuses it."""
        method = handler_call_details.method
        if not method.startswith(self._exempt):
            try:
                self._tokens.check(handler_call_details.invocation_metadata)
            except UnauthenticatedError as error:
                return self._refusal(error, method)
        return await continuation(handler_call_details)

    def _refusal(self, error: UnauthenticatedError, method: str) -> Handler:
        name = self._observer.metrics.calls.known(method)

        async def refuse(_requests: object, context: grpc.aio.ServicerContext[Any, Any]) -> None:
            identity = read_identity(context.invocation_metadata() or ())
            record = self._observer.begin(name, "grpc", context.peer, identity)
            await fail(context, error, record, self._observer)

        # Of a stream, whatever the method is: no request is waited for.
        return grpc.stream_stream_rpc_method_handler(refuse)
