"""grpcio's side of a service: bytes to requests, errors to status, calls to metrics."""

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any, Never

import grpc
import structlog
from google.protobuf import any_pb2, message_factory
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError, Message
from google.rpc import code_pb2, status_pb2
from grpc_status import rpc_status

from server.errors import InvalidArgumentError, ServiceError, Violation
from server.lifecycle import CallGate
from server.metrics import ServerMetrics
from server.service import Call

Method = Callable[[Any, Call], Awaitable[Message]]
Context = grpc.aio.ServicerContext[bytes, Message]

log = structlog.get_logger()


def generic_handler(
    descriptor: ServiceDescriptor,
    methods: dict[str, Method],
    metrics: ServerMetrics,
    gate: CallGate,
) -> grpc.GenericRpcHandler:
    """Return the handler of a service whose methods are given by their names in the proto."""
    return grpc.method_handlers_generic_handler(
        descriptor.full_name,
        {
            method.name: grpc.unary_unary_rpc_method_handler(
                # Requests arrive as bytes: one that can't be parsed gets a status of ours.
                _UnaryHandler(method, methods[method.name], metrics, gate).handle,
                response_serializer=_serialize,
            )
            for method in descriptor.methods
        },
    )


def _serialize(response: Message) -> bytes:
    return response.SerializeToString()


class _UnaryHandler:
    """Carries one method's calls."""

    def __init__(
        self,
        descriptor: MethodDescriptor,
        method: Method,
        metrics: ServerMetrics,
        gate: CallGate,
    ) -> None:
        self._name = descriptor.full_name
        self._request_type = message_factory.GetMessageClass(descriptor.input_type)
        self._method = method
        self._gate = gate
        labels = (descriptor.containing_service.full_name, descriptor.name, "unary")
        self._seconds = metrics.handling_seconds.labels(*labels)
        self._handled = {
            code.name: metrics.handled.labels(*labels, code.name) for code in grpc.StatusCode
        }

    async def handle(self, request: bytes, context: Context) -> Message:
        started = time.perf_counter()
        call = _call(context)
        code = "OK"
        try:
            return await self._run(request, call)
        except ServiceError as error:
            code = error.status
            await _abort(context, code, str(error), error.details())
        except asyncio.CancelledError:
            late = call.deadline is not None and time.monotonic() >= call.deadline
            code = "DEADLINE_EXCEEDED" if late else "CANCELLED"
            raise
        except Exception:
            code = "INTERNAL"
            request_id = uuid.uuid4().hex
            log.exception("call failed", method=self._name, request_id=request_id, peer=call.peer)
            text = f"internal error; the server's log has the cause under request {request_id}"
            await _abort(context, code, text, [])
        finally:
            self._handled[code].inc()
            self._seconds.observe(time.perf_counter() - started)

    async def _run(self, request: bytes, call: Call) -> Message:
        await self._gate.enter()
        try:
            return await self._method(self._parse(request), call)
        finally:
            self._gate.leave()

    def _parse(self, request: bytes) -> Message:
        try:
            return self._request_type.FromString(request)
        except DecodeError:
            description = f"expected a {self._request_type.DESCRIPTOR.full_name}, got other bytes"
            raise InvalidArgumentError([Violation("request", description)]) from None


def _call(context: Context) -> Call:
    remaining: float | None = context.time_remaining()  # None without a deadline, despite the stubs
    return Call(
        peer=context.peer(),
        metadata=tuple(context.invocation_metadata() or ()),
        deadline=None if remaining is None else time.monotonic() + remaining,
    )


async def _abort(context: Context, code: str, text: str, details: list[Message]) -> Never:
    """End the call with a google.rpc.Status; always raises."""
    status = status_pb2.Status(code=code_pb2.Code.Value(code), message=text)
    for detail in details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    rich = rpc_status.to_status(status)
    await context.abort(rich.code, rich.details, rich.trailing_metadata)
