"""Answers forwarded calls by the handlers and interceptors that the server's gRPC port has."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import grpc
import structlog
from google.protobuf.descriptor import ServiceDescriptor

from deploy.ray.serve.calls import ForwardedCall, Metadata, Reply, Status
from deploy.ray.serve.context import ForwardedContext
from server.transport.grpc.handlers import note_identity
from server.transport.grpc.reflection import REFLECTION_SERVICES
from server.transport.grpc.server import DESCRIPTORS

# Methods by which Ray finds the function that answers: their names without the service's.
SERVICES: tuple[ServiceDescriptor, ...] = (*DESCRIPTORS, *REFLECTION_SERVICES)
UNARY_METHODS = sorted(
    {each.name for service in SERVICES for each in service.methods if not each.client_streaming}
)
STREAM_METHODS = sorted(
    {each.name for service in SERVICES for each in service.methods if each.client_streaming}
)
NO_REQUESTS = ()  # handlers of streams read from the context instead
NOT_FOUND: Status = (grpc.StatusCode.UNIMPLEMENTED, "Method not found!", ())

Handler: TypeAlias = Any  # grpc.RpcMethodHandler, of which the stubs know the blocking form alone

log = structlog.get_logger()


class CallDetails(NamedTuple):
    """What generic handlers and interceptors are given; as grpc.HandlerCallDetails."""

    method: str
    invocation_metadata: Metadata


class Answering:
    """Answers calls by the first handler that takes them.

    Args:
        handlers: of all services, and of what is unknown.
        interceptors: what calls pass first.
        max_request_bytes: a message with more is refused, as gRPC would.
    """

    def __init__(
        self,
        handlers: Sequence[grpc.GenericRpcHandler],
        interceptors: Sequence[grpc.aio.ServerInterceptor],
        max_request_bytes: int,
    ) -> None:
        self._handlers, self._interceptors = tuple(handlers), tuple(interceptors)
        self._max_request_bytes = max_request_bytes

    async def answer(self, call: ForwardedCall) -> Reply:
        """Return the response to a call of one request."""
        context = ForwardedContext(call, self._max_request_bytes)
        message: bytes | None = None
        if not context.admits(call.message):
            return Reply(None, context.refused)
        try:
            handler = await self._handler(context, call.method)
            if handler is None:
                return Reply(None, NOT_FOUND)
            if handler.request_streaming:  # of what refuses any call
                await handler.stream_stream(NO_REQUESTS, context)
            else:
                message = await handler.unary_unary(call.message, context)
        except Exception as error:  # noqa: BLE001 (it ends the call with a status)
            return Reply(None, _status(error, context, call))
        return Reply(message, None, context.trailing)

    async def stream(self, requests: AsyncIterator[Any]) -> AsyncGenerator[Reply, None]:
        """Yield the responses to a stream, whose first item is the call, and its status."""
        call: ForwardedCall | None = await anext(requests, None)
        if call is None:  # the client has left
            return
        context = ForwardedContext(call, self._max_request_bytes, requests)
        task = asyncio.create_task(self._run_stream(call, context))
        try:
            while True:
                reply = await context.replies.get()
                yield reply
                if reply.is_end:
                    return
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _run_stream(self, call: ForwardedCall, context: ForwardedContext) -> None:
        status: Status = (grpc.StatusCode.OK, "", ())
        try:
            handler = await self._handler(context, call.method)
            if handler is None:
                status = NOT_FOUND
            else:
                await handler.stream_stream(NO_REQUESTS, context)
        except Exception as error:  # noqa: BLE001 (it ends the call with a status)
            status = _status(error, context, call)
        await context.replies.put(Reply(None, context.refused or status, context.trailing))

    async def _handler(self, context: ForwardedContext, method: str) -> Handler | None:
        details: Any = CallDetails(method, context.invocation_metadata())

        async def find(details: CallDetails) -> Handler | None:
            note_identity(details.invocation_metadata)
            taken: Any = details
            for generic in self._handlers:
                if (handler := generic.service(taken)) is not None:
                    return handler
            return None

        continuation: Any = find
        for interceptor in reversed(self._interceptors):
            continuation = partial(interceptor.intercept_service, continuation)
        handler: Handler | None = await continuation(details)
        return handler


def _status(error: Exception, context: ForwardedContext, call: ForwardedCall) -> Status:
    """Return what a call ends with whose handler has raised."""
    if isinstance(error, grpc.aio.AbortError) and context.status is not None:
        return context.status
    log.error("a handler failed", method=call.method, exc_info=error)
    return (grpc.StatusCode.UNKNOWN, f"Unexpected {type(error)}: {error}", ())
