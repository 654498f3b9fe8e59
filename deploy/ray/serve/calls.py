"""What a proxy of Ray and a replica say to each other of a gRPC call.

Ray carries requests and responses of any type that can be pickled. The two sides are processes of
one cluster, which trust each other as Ray's own do.
"""

import pickle
from typing import NamedTuple

import grpc

Metadata = tuple[tuple[str, str | bytes], ...]
Status = tuple[grpc.StatusCode, str, Metadata]  # with a text and trailing metadata


class ForwardedCall(NamedTuple):
    """A call as it arrived.

    Attributes:
        method: as "/service/method".
        peer: the address of the client.
        metadata: of the call.
        seconds: until its deadline; None: it has none. A duration, for clocks differ.
        message: the request's bytes; of a stream nothing: its messages follow.
    """

    method: str
    peer: str
    metadata: Metadata
    seconds: float | None
    message: bytes


class Reply:
    """A part of the answer: a message, the status at the end, or both.

    Args:
        message: its bytes; None: there is none.
        status: how the call ended; None: with OK, or of a stream: it has not.
        trailing: metadata after a message that went well.
    """

    __slots__ = ("_parts",)

    def __init__(
        self, message: bytes | None, status: Status | None = None, trailing: Metadata = ()
    ) -> None:
        self._parts = (message, status, trailing)

    @property
    def is_end(self) -> bool:
        """Tell if no other part of a stream follows."""
        return self._parts[1] is not None

    def SerializeToString(self) -> bytes:  # noqa: N802 (Ray calls it as protobuf's)
        """Return what `parse_reply` reads."""
        return pickle.dumps(self._parts, pickle.HIGHEST_PROTOCOL)


def parse_reply(data: bytes) -> tuple[bytes | None, Status | None, Metadata]:
    """Return the parts of a reply."""
    parts: tuple[bytes | None, Status | None, Metadata] = pickle.loads(data)  # noqa: S301 (of a replica)
    return parts
