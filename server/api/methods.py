"""The methods of a service as a table, which every transport serves alike."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import DecodeError, Message

from server.context import CallContext
from server.errors import InvalidArgumentError, ServiceError, Violation

Request = TypeVar("Request")
MessageT = TypeVar("MessageT", bound=Message)

Decode = Callable[[bytes], Request]


@dataclass(frozen=True, slots=True)
class UnaryMethod(Generic[Request]):
    """A method of one request and one response.

    Args:
        name: as in the proto.
        function: answers a request; raises ServiceError.
        decode: makes a request of a message's bytes; raises InvalidArgumentError.
        served_while_draining: what asks for health gets its answer even then.
    """

    name: str
    function: Callable[[Request, CallContext], Awaitable[Message]]
    decode: Decode[Request]
    served_while_draining: bool = False


@dataclass(frozen=True, slots=True)
class StreamMethod(Generic[Request]):
    """A method of a stream of requests and a stream of responses.

    The function gets, in the place of a message that could not be decoded, its error.
    """

    name: str
    function: Callable[
        [AsyncIterator[Request | ServiceError], CallContext], AsyncGenerator[Message, None]
    ]
    decode: Decode[Request]
    served_while_draining: bool = False


@dataclass(frozen=True, slots=True)
class Service:
    """A service of a proto and what serves each of its methods."""

    descriptor: ServiceDescriptor
    methods: tuple[UnaryMethod[Any] | StreamMethod[Any], ...]


def message_decoder(message_type: type[MessageT]) -> Decode[MessageT]:
    """Return what makes a message of its bytes."""
    return decoder(message_type, message_type.FromString)


def decoder(message_type: type[Message], parse: Decode[Request]) -> Decode[Request]:
    """Return `parse` with a ServiceError in the place of protobuf's DecodeError."""

    def decode(message: bytes) -> Request:
        try:
            return parse(message)
        except DecodeError:
            pass  # raised from here it would be the context of what follows, and keep the request
        description = f"expected a {message_type.DESCRIPTOR.full_name}, got other bytes"
        raise InvalidArgumentError([Violation("request", description)])

    return decode
