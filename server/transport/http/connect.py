"""A service over the Connect protocol and gRPC-Web: JSON and binary, by the package connectrpc."""

import math
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import aclosing, contextmanager
from functools import partial
from typing import Any, ClassVar, NamedTuple

from connectrpc.code import Code
from connectrpc.errors import ConnectError, ErrorDetail
from connectrpc.method import IdempotencyLevel, MethodInfo, StreamType
from connectrpc.request import RequestContext
from connectrpc.server import ConnectASGIApplication, Endpoint
from google.protobuf import json_format, message_factory
from google.protobuf.message import Message
from protobuf.wkt import Any as WireAny

from server.api.methods import Decode, Service, StreamMethod, UnaryMethod
from server.errors import (
    InvalidArgumentError,
    ServiceError,
    Violation,
    rich_status,
    without_frames,
)
from server.lifecycle.gate import CallGate
from server.observability.calls import CallObserver
from server.transport.http.calls import HowItEnds, HttpCall, answer, enter
from server.transport.http.records import current_record

MAX_REASON = 200  # characters that protobuf says of bytes that are no message

Context = RequestContext[Any, Any]


class _Body(NamedTuple):
    """A message as it came."""

    data: bytes
    is_json: bool


class _Form(ABC):
    """A form of messages, which notes how long it takes to make one of a response."""

    NAME: ClassVar[str]

    def __init__(self, observer: CallObserver) -> None:
        self._observer = observer

    def name(self) -> str:
        return self.NAME

    def encode(self, message: Message) -> bytes:
        data = self._encode(message)
        self._observer.encoded(current_record.get(), 0)  # its bytes are counted as they are sent
        return data

    @abstractmethod
    def _encode(self, message: Message) -> bytes: ...


class _Binary(_Form):
    """The form of messages in `application/proto`."""

    NAME: ClassVar[str] = "proto"

    def _encode(self, message: Message) -> bytes:
        return message.SerializeToString()

    def decode(self, data: bytes | bytearray, _message_class: object) -> _Body:
        return _Body(bytes(data), is_json=False)


class _Json(_Form):
    """The form of messages in `application/json`: protobuf's own mapping."""

    NAME: ClassVar[str] = "json"

    def _encode(self, message: Message) -> bytes:
        return json_format.MessageToJson(message, indent=None).encode()

    def decode(self, data: bytes | bytearray, _message_class: object) -> _Body:
        return _Body(bytes(data), is_json=True)


class ConnectApplication(ConnectASGIApplication[Service]):
    """The methods of a service at /PACKAGE.SERVICE/METHOD.

    Args:
        service: its methods.
        gate: refuses calls when it is closed.
        observer: is told how long responses take to make.
        max_message_bytes: the most bytes of a request message, decompressed.
    """

    def __init__(
        self, service: Service, gate: CallGate, observer: CallObserver, max_message_bytes: int
    ) -> None:
        self._path = f"/{service.descriptor.full_name}"
        super().__init__(
            service=service,
            endpoints=lambda service: _endpoints(service, gate),
            read_max_bytes=max_message_bytes,
            codecs=(_Binary(observer), _Json(observer)),
        )

    @property
    def path(self) -> str:
        """The start of the path of every method."""
        return self._path


def method_path(service: Service, method: UnaryMethod[Any] | StreamMethod[Any]) -> str:
    """Return the path of a method."""
    return f"/{service.descriptor.full_name}/{method.name}"


def _endpoints(service: Service, gate: CallGate) -> Mapping[str, Any]:
    return {
        method_path(service, method): _endpoint(service, method, gate) for method in service.methods
    }


def _endpoint(
    service: Service, method: UnaryMethod[Any] | StreamMethod[Any], gate: CallGate
) -> Endpoint[Any, Any]:
    described = service.descriptor.methods_by_name[method.name]
    request_type = message_factory.GetMessageClass(described.input_type)
    is_stream = isinstance(method, StreamMethod)
    info = MethodInfo(
        name=method.name,
        service_name=service.descriptor.full_name,
        input=request_type,
        output=message_factory.GetMessageClass(described.output_type),
        idempotency_level=IdempotencyLevel.UNKNOWN,
        stream_type=StreamType.BIDI_STREAM if is_stream else StreamType.UNARY,
    )
    decode = partial(_decode, request_type, method.decode)
    if isinstance(method, StreamMethod):
        return Endpoint.bidi_stream(info, partial(_stream, method, decode, gate))
    return Endpoint.unary(info, partial(_unary, method, decode, gate))


async def _unary(
    method: UnaryMethod[Any],
    decode: "Decode[Any]",
    gate: CallGate,
    body: Any,  # noqa: ANN401 (a _Body, where connectrpc expects a message)
    context: Context,
) -> Message:
    with _connect_errors(context):
        return await answer(method, partial(decode, body), _call(context, gate), gate)


async def _stream(
    method: StreamMethod[Any],
    decode: "Decode[Any]",
    gate: CallGate,
    bodies: AsyncIterator[Any],
    context: Context,
) -> AsyncGenerator[Message, None]:
    call = _call(context, gate)
    with _connect_errors(context), HowItEnds(call), await enter(method, gate):
        requests = _requests(bodies, decode)
        async with aclosing(method.function(requests, call)) as responses:
            async for response in responses:
                yield response


async def _requests(bodies: AsyncIterator[Any], decode: "Decode[Any]") -> AsyncGenerator[Any, None]:
    """Yield the requests, or the error of one that can't be decoded."""
    async for body in bodies:
        try:
            request = decode(body)
        except ServiceError as error:
            request = without_frames(error)
        yield request


def _decode(request_type: type[Message], decode: Decode[Any], body: _Body) -> Any:  # noqa: ANN401 (of the method's type)
    """Return the request of a message.

    Raises:
        InvalidArgumentError: it is none.
    """
    return decode(_binary(request_type, body.data) if body.is_json else body.data)


def _binary(request_type: type[Message], text: bytes) -> bytes:
    """Return a message in JSON as bytes."""
    try:
        if not text.lstrip().startswith(b"{"):  # protobuf takes some others for an empty message
            raise ValueError("it is no object")  # noqa: TRY301 (one place words them all)
        message = json_format.Parse(text, request_type())
    except (ValueError, RecursionError, json_format.ParseError) as error:
        # ValueError: its bytes are no UTF-8, or a number is too long.
        reason = ascii(str(error).partition("\n")[0])[1:-1][:MAX_REASON]
        description = f"expected a {request_type.DESCRIPTOR.full_name} in JSON: {reason}"
    else:
        return message.SerializeToString()
    raise InvalidArgumentError([Violation("request", description)])


def _call(context: Context, gate: CallGate) -> HttpCall:
    left = context.timeout_ms
    deadline = None if left is None else time.monotonic() + left / 1000
    return HttpCall(current_record.get(), deadline, gate)


@contextmanager
def _connect_errors(context: Context) -> Iterator[None]:
    """Raise connectrpc's error in the place of a ServiceError, with the same details."""
    try:
        yield
    except ServiceError as error:
        if error.retry_seconds is not None:
            context.response_headers["retry-after"] = str(math.ceil(error.retry_seconds))
        details = [
            ErrorDetail(WireAny(type_url=each.type_url, value=each.value))
            for each in rich_status(error, current_record.get().request_id).details
        ]
        raise ConnectError(Code(error.status.lower()), str(error), details) from None
