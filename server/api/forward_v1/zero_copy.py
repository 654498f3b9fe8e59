"""Large requests without copies: the images' bytes stay where gRPC put them.

protobuf copies a `bytes` field when it parses a message and again when the field
is read: for hundreds of images that takes as long as their forward pass. Here
the field is found in the message and left out of what protobuf parses.
"""

from functools import partial
from typing import Any, Generic, NamedTuple, TypeVar

from google.protobuf.message import Message

from server.api.methods import Decode, decoder

MIN_BYTES = 16 * 1024  # in smaller requests protobuf's copies cost less than to find the field
IMAGES_TAG = 0x0A  # field 1, length-delimited: images of a request
DATA_TAG = 0x1A  # field 3, length-delimited: data of Tensor
VARINT, FIXED64, LENGTH_DELIMITED, FIXED32 = 0, 1, 2, 5  # wire types

MessageT = TypeVar("MessageT", bound=Message)
MessageT_co = TypeVar("MessageT_co", bound=Message, covariant=True)


class ImageRequest(NamedTuple, Generic[MessageT_co]):
    """A request of images: its message, and `images.data`, which the message may lack."""

    message: MessageT_co
    image_data: bytes | memoryview


class _Span(NamedTuple):
    """A field in a buffer: from its tag to its end, and where its content starts."""

    tag_at: int
    content: int
    end: int


class _IrregularError(Exception):
    """Rare or malformed; fall back to protobuf."""


def image_decoder(message_type: type[MessageT]) -> Decode[ImageRequest[MessageT]]:
    """Return what makes a request of images of its bytes."""
    return decoder(message_type, partial(parse, message_type))


def parse(message_type: type[MessageT], request: bytes) -> ImageRequest[MessageT]:
    """Parse a request that has `images`, a Tensor, as its field 1.

    Raises:
        DecodeError: it is no such message.
    """
    if len(request) >= MIN_BYTES:
        try:
            return _parse_large(message_type, request)
        except _IrregularError:
            pass
    message: Any = message_type.FromString(request)  # Message has no fields of its own
    return ImageRequest(message, message.images.data)


def _parse_large(message_type: type[MessageT], request: bytes) -> ImageRequest[MessageT]:
    images = _only_field(request, 0, len(request), IMAGES_TAG)
    data = _only_field(request, images.content, images.end, DATA_TAG)
    tensor = request[images.content : data.tag_at] + request[data.end : images.end]
    rest = b"".join(
        (
            request[: images.tag_at],
            bytes((IMAGES_TAG,)),
            _varint(len(tensor)),
            tensor,
            request[images.end :],
        )
    )
    if len(rest) >= MIN_BYTES:
        raise _IrregularError  # what is large is not the images
    message = message_type.FromString(rest)
    return ImageRequest(message, memoryview(request)[data.content : data.end])


def _only_field(buffer: bytes, start: int, end: int, wanted: int) -> _Span:
    """Return the one field with that tag."""
    found, others = None, 0
    at = start
    while at < end:
        tag_at = at
        tag, at = _read_varint(buffer, at, end)
        wire_type = tag & 7
        content = at
        if wire_type == LENGTH_DELIMITED:
            length, content = _read_varint(buffer, at, end)
            at = content + length
        elif wire_type == VARINT:
            _, at = _read_varint(buffer, at, end, bits=64)
        elif wire_type in (FIXED64, FIXED32):
            at += 8 if wire_type == FIXED64 else 4
        else:
            raise _IrregularError
        if at > end:
            raise _IrregularError
        if tag >> 3 == wanted >> 3:
            if found or buffer[tag_at] != wanted:
                raise _IrregularError  # protobuf merges what comes twice
            found = _Span(tag_at, content, at)
        else:
            others += at - tag_at
            if others >= MIN_BYTES:
                raise _IrregularError  # what is large is not the images
    if found is None:
        raise _IrregularError
    return found


def _read_varint(buffer: bytes, at: int, end: int, bits: int = 32) -> tuple[int, int]:
    """Return the value and where it ends; tags and lengths have 32 bits."""
    value = shift = 0
    while at < end and shift < bits:
        byte = buffer[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise _IrregularError


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
