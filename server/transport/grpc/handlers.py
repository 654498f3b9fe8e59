"""Handlers of grpcio for the methods of a service: errors become status, calls have records."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager, aclosing, nullcontext, suppress
from contextvars import ContextVar
from typing import Any, Never

import grpc
from google.protobuf.message import Message
from google.rpc import code_pb2

from server.api.methods import Service, StreamMethod, UnaryMethod
from server.context import CallContext
from server.errors import ServiceError, as_service_error, without_frames
from server.lifecycle.gate import CallGate
from server.observability.calls import CallObserver
from server.observability.records import CallRecord
from server.observability.request_id import (
    NO_IDENTITY,
    REQUEST_ID,
    Identity,
    Metadata,
    read_identity,
)
from server.transport.grpc.ending import fail

Context = grpc.aio.ServicerContext[bytes, bytes]


def generic_handler(
    service: Service, observer: CallObserver, gate: CallGate
) -> grpc.GenericRpcHandler:
    """Return the handler of a service's calls.

    The gate, when it is closed, refuses all of them but those that are served while draining.
    """
    return _ServiceHandlers(service, observer, gate)


# Of the call that the running task answers. grpcio gives the metadata to find the handler; to ask
# for them again, and to keep what most calls have not, would take it microseconds.
_identity: ContextVar[Identity] = ContextVar("identity", default=NO_IDENTITY)


def note_identity(metadata: Metadata) -> None:
    """Keep the identity of the call that the running task answers, if it has one."""
    identity = read_identity(metadata)
    if identity is not NO_IDENTITY:
        _identity.set(identity)


class _ServiceHandlers(grpc.GenericRpcHandler):
    """The handlers of a service, by the names of the methods."""

    def __init__(self, service: Service, observer: CallObserver, gate: CallGate) -> None:
        name = service.descriptor.full_name
        self._handlers = {
            f"/{name}/{method.name}": _handler(name, method, observer, gate)
            for method in service.methods
        }

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> "grpc.RpcMethodHandler[bytes, bytes] | None":
        """Return the handler of a call; None if it is of another service."""
        handler = self._handlers.get(handler_call_details.method)
        if handler is not None:
            note_identity(handler_call_details.invocation_metadata)
        return handler


def _handler(
    service: str,
    method: UnaryMethod[Any] | StreamMethod[Any],
    observer: CallObserver,
    gate: CallGate,
) -> "grpc.RpcMethodHandler[bytes, bytes]":
    # Requests arrive as bytes: one that can't be decoded gets a status of ours. Responses leave as
    # bytes: what they take to make is on record before the caller has them.
    if isinstance(method, StreamMethod):
        return grpc.stream_stream_rpc_method_handler(
            _StreamHandler(service, method, observer, gate).handle
        )
    return grpc.unary_unary_rpc_method_handler(
        _UnaryHandler(service, method, observer, gate).handle
    )


CLOCK_SECONDS = 0.02
END_SECONDS = 0.002


class _GrpcCall:
    """The context of a call; what is seldom needed is read from grpcio's context on demand."""

    __slots__ = ("_gate", "_task", "deadline", "record")

    def __init__(self, context: Context, record: CallRecord, gate: CallGate) -> None:
        self.record = record
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
        return self.record.peer

    def add_done_callback(self, callback: Callable[[], None]) -> None:
        # Not through the context, which would keep the callback and itself until garbage is
        # collected: it puts itself among the arguments of the callback.
        self._task.add_done_callback(lambda _: callback())

    def add_drain_callback(self, callback: Callable[[], None]) -> None:
        self._gate.add_close_callback(callback)
        self.add_done_callback(lambda: self._gate.remove_close_callback(callback))


class _Handler:
    """What the calls of any method have in common: the gate, the errors and the records."""

    def __init__(
        self,
        service: str,
        method: UnaryMethod[Any] | StreamMethod[Any],
        observer: CallObserver,
        gate: CallGate,
    ) -> None:
        kind = "bidi_stream" if isinstance(method, StreamMethod) else "unary"
        observer.metrics.calls.register_method(service, method.name, kind)
        self._name = f"/{service}/{method.name}"
        self._observer = observer
        self._gate = gate
        self._served_while_draining = method.served_while_draining
        # A drain does not wait for the calls that it does not refuse.
        self._entered: AbstractContextManager[None] = (
            nullcontext() if method.served_while_draining else gate
        )

    def _is_closed(self) -> bool:
        return self._gate.closed and not self._served_while_draining

    def _begin(self, context: Context) -> _GrpcCall:
        record = self._observer.begin(self._name, "grpc", context.peer, _identity.get())
        return _GrpcCall(context, record, self._gate)

    def _end(self, call: _GrpcCall, context: Context) -> None:
        """End a call that went well; its last message is sent after that."""
        record = call.record
        self._observer.end(record, "OK")
        if record.has_id:  # one that leads nowhere is not sent: grpcio takes long for metadata
            context.set_trailing_metadata(((REQUEST_ID, record.request_id),))

    def _cancel(self, call: _GrpcCall, context: Context) -> None:
        # The native transport tells what it has sent; grpcio doesn't.
        code: int | None = getattr(context, "end_code", None)
        if code is not None:
            status = code_pb2.Code.Name(code)
        else:
            status = "DEADLINE_EXCEEDED" if call.is_late else "CANCELLED"
        self._observer.end(call.record, status)

    async def _fail(self, error: Exception, call: _GrpcCall, context: Context) -> Never:
        record = call.record
        failure = as_service_error(error, record.peer, record.request_id)
        await fail(context, failure, record, self._observer)


class _UnaryHandler(_Handler):
    """The calls of a method of one request and one response."""

    def __init__(
        self, service: str, method: UnaryMethod[Any], observer: CallObserver, gate: CallGate
    ) -> None:
        super().__init__(service, method, observer, gate)
        self._function, self._decode = method.function, method.decode

    async def handle(self, request: bytes, context: Context) -> bytes:
        call = self._begin(context)
        call.record.request_bytes = len(request)
        try:
            if self._is_closed():
                await self._gate.refuse()
            with self._entered:
                answering = self._answer(request, call)
                del request
                response = (await answering).SerializeToString()
        except asyncio.CancelledError:
            self._cancel(call, context)
            raise
        except Exception as error:  # noqa: BLE001 (it ends the call with a status)
            await self._fail(error, call, context)
        self._observer.encoded(call.record, len(response))
        self._end(call, context)
        return response

    def _answer(self, request: bytes, call: CallContext) -> Awaitable[Message]:
        return self._function(self._decode(request), call)


class _StreamHandler(_Handler):
    """The calls of a method of a stream of requests and a stream of responses."""

    def __init__(
        self, service: str, method: StreamMethod[Any], observer: CallObserver, gate: CallGate
    ) -> None:
        super().__init__(service, method, observer, gate)
        self._function, self._decode = method.function, method.decode

    async def handle(self, _requests: AsyncIterator[bytes], context: Context) -> None:
        call = self._begin(context)
        record = call.record
        try:
            if self._is_closed():
                await self._gate.refuse()
            with self._entered:
                requests = self._read(context, record)
                async with aclosing(self._function(requests, call)) as responses:
                    async for response in responses:
                        message = response.SerializeToString()
                        del response  # not to be held while the stream waits for the next
                        self._observer.encoded(record, len(message))
                        await context.write(message)
                        record.phase = "read"
                        del message
        except asyncio.CancelledError:
            self._cancel(call, context)
            raise
        except Exception as error:  # noqa: BLE001 (it ends the call with a status)
            await self._fail(error, call, context)
        self._end(call, context)

    async def _read(self, context: Context, record: CallRecord) -> AsyncIterator[Any]:
        """Yield the requests, or the error of one that can't be decoded."""
        while True:
            message: Any = await context.read()
            if message is grpc.aio.EOF:
                # So it says also when the call is cancelled or late, a moment before it says that.
                with suppress(asyncio.CancelledError):  # all is read, whatever comes now
                    await asyncio.sleep(END_SECONDS)
                return
            record.request_bytes += len(message)
            request: Any
            try:
                request = self._decode(message)
            except ServiceError as error:
                request = without_frames(error)
            del message
            yield request
            del request  # not to be held while the stream waits for the next
