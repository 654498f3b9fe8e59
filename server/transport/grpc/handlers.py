"""Handlers of grpcio for the methods of a service: errors become status, calls are counted."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager, aclosing, nullcontext, suppress
from typing import Any, Never

import grpc
from google.protobuf.message import Message
from grpc_status import rpc_status

from server.api.methods import Service, StreamMethod, UnaryMethod
from server.context import CallContext
from server.errors import ServiceError, as_service_error, rich_status, without_frames
from server.lifecycle.gate import CallGate
from server.observability.metrics import MethodMetrics, ServerMetrics
from server.transport.grpc.ending import abort

Context = grpc.aio.ServicerContext[bytes, Message]


def generic_handler(
    service: Service, metrics: ServerMetrics, gate: CallGate
) -> grpc.GenericRpcHandler:
    """Return the handler of a service's calls.

    The gate, when it is closed, refuses all of them but those that are served while draining.
    """
    name = service.descriptor.full_name
    handlers = {method.name: _handler(name, method, metrics, gate) for method in service.methods}
    return grpc.method_handlers_generic_handler(name, handlers)


def _handler(
    service: str,
    method: UnaryMethod[Any] | StreamMethod[Any],
    metrics: ServerMetrics,
    gate: CallGate,
) -> "grpc.RpcMethodHandler[bytes, Message]":
    # Requests arrive as bytes: one that can't be decoded gets a status of ours.
    if isinstance(method, StreamMethod):
        stream = _StreamHandler(service, method, metrics, gate)
        return grpc.stream_stream_rpc_method_handler(stream.handle, response_serializer=_serialize)
    unary = _UnaryHandler(service, method, metrics, gate)
    return grpc.unary_unary_rpc_method_handler(unary.handle, response_serializer=_serialize)


def _serialize(response: Message) -> bytes:
    return response.SerializeToString()


CLOCK_SECONDS = 0.02
END_SECONDS = 0.002


class _GrpcCall:
    """The context of a call; what is seldom needed is read from grpcio's context on demand."""

    __slots__ = ("_context", "_gate", "_task", "deadline")

    def __init__(self, context: Context, gate: CallGate) -> None:
        self._context = context
        self._gate = gate
        self._task: Any = (
            asyncio.current_task()
        )  # grpcio's; it ends when the response has been sent
        # None without a deadline, despite the stubs.
        remaining: float | None = context.time_remaining()
        if remaining == 0:
            # It reads the wall clock twice; that may have been set in between.
            remaining = context.time_remaining()
        self.deadline = None if remaining is None else time.monotonic() + remaining

    @property
    def is_late(self) -> bool:
        """Tell if the deadline has passed; the caller's own clock may be a little ahead."""
        return self.deadline is not None and time.monotonic() >= self.deadline - CLOCK_SECONDS

    @property
    def peer(self) -> str:
        return self._context.peer()

    def add_done_callback(self, callback: Callable[[], None]) -> None:
        # Not through the context, which would keep the callback and itself until garbage is
        # collected: it puts itself among the arguments of the callback.
        self._task.add_done_callback(lambda _: callback())

    def add_drain_callback(self, callback: Callable[[], None]) -> None:
        self._gate.add_close_callback(callback)
        self.add_done_callback(lambda: self._gate.remove_close_callback(callback))


class _Handler:
    """What the calls of any method have in common: the gate, the errors and the metrics."""

    def __init__(
        self, method: UnaryMethod[Any] | StreamMethod[Any], metrics: MethodMetrics, gate: CallGate
    ) -> None:
        self._metrics = metrics
        self._gate = gate
        self._served_while_draining = method.served_while_draining
        # A drain does not wait for the calls that it does not refuse.
        self._entered: AbstractContextManager[None] = (
            nullcontext() if method.served_while_draining else gate
        )

    def _is_closed(self) -> bool:
        return self._gate.closed and not self._served_while_draining

    def _count_cancelled(self, call: _GrpcCall, started: float) -> None:
        self._metrics.observe("DEADLINE_EXCEEDED" if call.is_late else "CANCELLED", started)

    async def _fail(
        self, error: Exception, call: _GrpcCall, context: Context, started: float
    ) -> Never:
        """End a call with an error's status, counted before the caller can know it."""
        failure = as_service_error(error, call.peer)
        self._metrics.observe(failure.status, started)
        rich = rpc_status.to_status(rich_status(failure))
        await abort(context, rich.code, rich.details, rich.trailing_metadata)


class _UnaryHandler(_Handler):
    """The calls of a method of one request and one response."""

    def __init__(
        self, service: str, method: UnaryMethod[Any], metrics: ServerMetrics, gate: CallGate
    ) -> None:
        super().__init__(method, _method_metrics(metrics, service, method.name, "unary"), gate)
        self._function, self._decode = method.function, method.decode

    async def handle(self, request: bytes, context: Context) -> Message:
        started = time.perf_counter()
        call = _GrpcCall(context, self._gate)
        try:
            if self._is_closed():
                await self._gate.refuse()
            with self._entered:
                answering = self._begin(request, call)
                del request
                response = await answering
        except asyncio.CancelledError:
            self._count_cancelled(call, started)
            raise
        except Exception as error:  # noqa: BLE001 (it ends the call with a status)
            await self._fail(error, call, context, started)
        self._metrics.observe("OK", started)
        return response

    def _begin(self, request: bytes, call: CallContext) -> Awaitable[Message]:
        return self._function(self._decode(request), call)


class _StreamHandler(_Handler):
    """The calls of a method of a stream of requests and a stream of responses."""

    def __init__(
        self, service: str, method: StreamMethod[Any], metrics: ServerMetrics, gate: CallGate
    ) -> None:
        kind = "bidi_stream"
        super().__init__(method, _method_metrics(metrics, service, method.name, kind), gate)
        self._function, self._decode = method.function, method.decode

    async def handle(self, _requests: AsyncIterator[bytes], context: Context) -> None:
        started = time.perf_counter()
        call = _GrpcCall(context, self._gate)
        try:
            if self._is_closed():
                await self._gate.refuse()
            with self._entered:
                async with aclosing(self._function(self._read(context), call)) as responses:
                    async for response in responses:
                        await context.write(response)
                        del response  # not to be held while the stream waits for the next
        except asyncio.CancelledError:
            self._count_cancelled(call, started)
            raise
        except Exception as error:  # noqa: BLE001 (it ends the call with a status)
            await self._fail(error, call, context, started)
        self._metrics.observe("OK", started)

    async def _read(self, context: Context) -> AsyncIterator[Any]:
        """Yield the requests, or the error of one that can't be decoded."""
        while True:
            message: Any = await context.read()
            if message is grpc.aio.EOF:
                # So it says also when the call is cancelled or late, a moment before it says that.
                with suppress(asyncio.CancelledError):  # all is read, whatever comes now
                    await asyncio.sleep(END_SECONDS)
                return
            request: Any
            try:
                request = self._decode(message)
            except ServiceError as error:
                request = without_frames(error)
            del message
            yield request
            del request  # not to be held while the stream waits for the next


def _method_metrics(metrics: ServerMetrics, service: str, method: str, kind: str) -> MethodMetrics:
    return metrics.register_method(service, method, kind, [code.name for code in grpc.StatusCode])
