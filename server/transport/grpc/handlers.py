"""grpcio's side of a service: bytes to requests, errors to status, calls to metrics."""

import asyncio
import time
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Mapping,
)
from contextlib import aclosing, suppress
from typing import Any, Never

import grpc
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError, Message
from grpc_status import rpc_status

from server.api.forward_v1.zero_copy import LargeRequest, parse
from server.context import CallContext
from server.errors import (
    InvalidArgumentError,
    ServiceError,
    Violation,
    rich_status,
    unforeseen,
    without_frames,
)
from server.lifecycle.gate import CallGate
from server.observability.metrics import ServerMetrics
from server.transport.grpc.ending import abort

Method = Callable[[Any, CallContext], Awaitable[Message]]
StreamMethod = Callable[[AsyncIterator[Any], CallContext], AsyncGenerator[Message, None]]
Context = grpc.aio.ServicerContext[bytes, Message]


def generic_handler(
    descriptor: ServiceDescriptor,
    methods: Mapping[str, Method | StreamMethod],
    metrics: ServerMetrics,
    gate: CallGate,
    ungated: Collection[str] = (),
) -> grpc.GenericRpcHandler:
    """Return the handler of a service whose methods are given by their names in the proto.

    The gate, when it is closed, refuses all of them but those that are `ungated`.
    """
    open_gate = CallGate()  # that nobody closes
    return grpc.method_handlers_generic_handler(
        descriptor.full_name,
        {
            method.name: _handler(
                method,
                methods[method.name],
                metrics,
                open_gate if method.name in ungated else gate,
            )
            for method in descriptor.methods
        },
    )


def _handler(
    descriptor: MethodDescriptor,
    method: Any,  # noqa: ANN401 (the descriptor tells which kind)
    metrics: ServerMetrics,
    gate: CallGate,
) -> "grpc.RpcMethodHandler[bytes, Message]":
    # Requests arrive as bytes: one that can't be parsed gets a status of ours.
    if descriptor.client_streaming:
        stream = _StreamHandler(descriptor, method, metrics, gate)
        return grpc.stream_stream_rpc_method_handler(stream.handle, response_serializer=_serialize)
    unary = _UnaryHandler(descriptor, method, metrics, gate)
    return grpc.unary_unary_rpc_method_handler(unary.handle, response_serializer=_serialize)


def _serialize(response: Message) -> bytes:
    return response.SerializeToString()


CLOCK_SECONDS = 0.02
END_SECONDS = 0.002


class _GrpcCall:
    """A call, read from grpcio's context when somebody asks: most of it is asked for seldom."""

    __slots__ = ("_context", "_gate", "_task", "deadline")

    def __init__(self, context: Context, gate: CallGate) -> None:
        self._context = context
        self._gate = gate
        self._task: Any = asyncio.current_task()  # grpcio's; it ends when the answer has left
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

    def when_draining(self, callback: Callable[[], None]) -> None:
        self._gate.when_closed(callback)
        self.add_done_callback(lambda: self._gate.forget(callback))


class _Handler:
    """What carrying a call has in common: the gate, the error's way out, the count."""

    def __init__(
        self,
        descriptor: MethodDescriptor,
        kind: str,
        metrics: ServerMetrics,
        gate: CallGate,
    ) -> None:
        self._request_type = message_factory.GetMessageClass(descriptor.input_type)
        self._has_images = "images" in descriptor.input_type.fields_by_name
        self._gate = gate
        labels = (descriptor.containing_service.full_name, descriptor.name, kind)
        self._seconds = metrics.handling_seconds.labels(*labels)
        self._handled = metrics.handled_of(*labels, (code.name for code in grpc.StatusCode))

    def _count(self, code: str, started: float) -> None:
        self._handled[code].inc()
        self._seconds.observe(time.perf_counter() - started)

    def _count_cancelled(self, call: _GrpcCall, started: float) -> None:
        self._count("DEADLINE_EXCEEDED" if call.is_late else "CANCELLED", started)

    async def _fail(
        self, error: Exception, call: _GrpcCall, context: Context, started: float
    ) -> Never:
        """End a call with an error's status, counted before the caller can know it."""
        failure = error if isinstance(error, ServiceError) else unforeseen(error, call.peer)
        self._count(failure.status, started)
        rich = rpc_status.to_status(rich_status(failure))
        await abort(context, rich.code, rich.details, rich.trailing_metadata)

    def _parse(self, request: bytes) -> Message | LargeRequest:
        try:
            if self._has_images:
                return parse(self._request_type, request)
            return self._request_type.FromString(request)
        except DecodeError:
            pass  # raised from here it would be the context of what follows, and keep the request
        description = f"expected a {self._request_type.DESCRIPTOR.full_name}, got other bytes"
        raise InvalidArgumentError([Violation("request", description)])


class _UnaryHandler(_Handler):
    """Carries one method's calls of one request and one answer."""

    def __init__(
        self, descriptor: MethodDescriptor, method: Method, metrics: ServerMetrics, gate: CallGate
    ) -> None:
        super().__init__(descriptor, "unary", metrics, gate)
        self._method = method

    async def handle(self, request: bytes, context: Context) -> Message:
        started = time.perf_counter()
        call = _GrpcCall(context, self._gate)
        try:
            if self._gate.closed:
                await self._gate.refuse()
            with self._gate:
                answering = self._begin(request, call)
                del request
                answer = await answering
        except asyncio.CancelledError:
            self._count_cancelled(call, started)
            raise
        except Exception as error:  # noqa: BLE001 (it ends the call with a status)
            await self._fail(error, call, context, started)
        self._count("OK", started)
        return answer

    def _begin(self, request: bytes, call: CallContext) -> Awaitable[Message]:
        return self._method(self._parse(request), call)


class _StreamHandler(_Handler):
    """Carries one method's calls of many requests and many answers."""

    def __init__(
        self,
        descriptor: MethodDescriptor,
        method: StreamMethod,
        metrics: ServerMetrics,
        gate: CallGate,
    ) -> None:
        super().__init__(descriptor, "bidi_stream", metrics, gate)
        self._method = method

    async def handle(self, _requests: AsyncIterator[bytes], context: Context) -> None:
        started = time.perf_counter()
        call = _GrpcCall(context, self._gate)
        try:
            if self._gate.closed:
                await self._gate.refuse()
            with self._gate:
                async with aclosing(self._method(self._read(context), call)) as answers:
                    async for answer in answers:
                        await context.write(answer)
                        del answer  # not to be held while the stream waits for the next
        except asyncio.CancelledError:
            self._count_cancelled(call, started)
            raise
        except Exception as error:  # noqa: BLE001 (it ends the call with a status)
            await self._fail(error, call, context, started)
        self._count("OK", started)

    async def _read(self, context: Context) -> AsyncIterator[Message | LargeRequest | ServiceError]:
        """Yield the requests, or the error of one that can't be parsed."""
        while True:
            request: Any = await context.read()
            if request is grpc.aio.EOF:
                # So it says also when the call is cancelled or late, a moment before it says that.
                with suppress(asyncio.CancelledError):  # all is read, whatever comes now
                    await asyncio.sleep(END_SECONDS)
                return
            message: Message | LargeRequest | ServiceError
            try:
                message = self._parse(request)
            except ServiceError as error:
                message = without_frames(error)
            del request
            yield message
            del message  # not to be held while the stream waits for the next
