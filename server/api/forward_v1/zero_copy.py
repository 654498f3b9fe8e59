"""Large requests without copies: the images' bytes stay where gRPC put them.

protobuf copies a `bytes` field when it parses a message and again when the field
is read: for hundreds of images that takes as long as their forward pass. Here
the field is found in the message and left out of what protobuf parses.
"""

from typing import NamedTuple, TypeVar

from google.protobuf.message import Message

LEAST_BYTES = 16 * 1024  # below that protobuf's copies cost less than to look for the field
IMAGES_TAG = 0x0A  # field 1, length-delimited: images of PredictRequest and its like
DATA_TAG = 0x1A  # field 3, length-delimited: data of Tensor
VARINT, FIXED64, LENGTH_DELIMITED, FIXED32 = 0, 1, 2, 5  # wire types

MessageT = TypeVar("MessageT", bound=Message)


class LargeTensor:
    """Reads like a Tensor, its data a view of the request's bytes."""

    __slots__ = ("data", "dtype", "shape")

    def __init__(self, tensor: object, data: memoryview) -> None:
        self.dtype, self.shape = tensor.dtype, tensor.shape  # type: ignore[attr-defined] # a Tensor
        self.data = data


class LargeRequest:
    """Reads like the request, but for its images, which are a LargeTensor."""

    __slots__ = ("_message", "images")

    def __init__(self, message: Message, data: memoryview) -> None:
        self._message = message
        self.images = LargeTensor(message.images, data)  # type: ignore[attr-defined] # has images

    def __getattr__(self, name: str) -> object:
        """Return what the message has under that name."""
        return getattr(self._message, name)


class _Span(NamedTuple):
    """A field in a buffer: from its tag to its end, and where its content starts."""

    tag_at: int
    content: int
    end: int


class _IrregularError(Exception):
    """Rare or malformed; fall back to protobuf."""


def parse(message_type: type[MessageT], request: bytes) -> MessageT | LargeRequest:
    """Parse a request with images; the result reads the same whatever its size.

    Raises:
        DecodeError: it is no such message.
    """
    if len(request) >= LEAST_BYTES:
        try:
            return _parse_large(message_type, request)
        except _IrregularError:
            pass
    return message_type.FromString(request)


def _parse_large(message_type: type[MessageT], request: bytes) -> LargeRequest:
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
    if len(rest) >= LEAST_BYTES:
        raise _IrregularError  # what is large is not the images
    return LargeRequest(message_type.FromString(rest), memoryview(request)[data.content : data.end])


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
            if others >= LEAST_BYTES:
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
