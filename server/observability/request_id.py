"""What a call says of itself: the id of its request, and the span that it belongs to."""

import re
from collections.abc import Iterable
from random import Random
from typing import Final

from server.observability.traceparent import HEADER, TraceParent, parse_traceparent

REQUEST_ID: Final = "x-request-id"
ACCEPTED_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
Metadata = Iterable[tuple[str, str | bytes]]

_random = Random()  # noqa: S311 (an id is no secret)


Identity = tuple[str, TraceParent | None]
NO_IDENTITY: Final[Identity] = ("", None)


def read_identity(metadata: Metadata) -> Identity:
    """Return the id of a request, "" if none came that can be taken, and the span it belongs to."""
    request_id, traceparent = NO_IDENTITY
    for key, value in metadata:
        if key == REQUEST_ID and isinstance(value, str) and ACCEPTED_ID.fullmatch(value):
            request_id = value
        elif key == HEADER and isinstance(value, str):
            traceparent = parse_traceparent(value)
    return (request_id, traceparent) if request_id or traceparent else NO_IDENTITY


def make_request_id() -> str:
    """Return an id of 32 hexadecimal digits that no other request has; it is no secret."""
    return f"{_random.getrandbits(128):032x}"
