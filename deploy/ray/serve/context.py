"""A call that a proxy of Ray forwarded, as grpc.aio's context shows it to handlers."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any, Never

import grpc

from deploy.ray.serve.calls import ForwardedCall, Metadata, Reply, Status

MAX_UNSENT = 16  # messages of a stream that wait for the client


class ForwardedContext:
    """What handlers use of `grpc.aio.ServicerContext`.

    Args:
        call: what was forwarded.
        max_request_bytes: a message with more ends the call, as it does in gRPC.
        requests: the messages of a stream.
    """

    __slots__ = (
        *("_deadline", "_max_request_bytes", "_metadata", "_peer", "_requests"),
        *("refused", "replies", "status", "trailing"),
    )

    def __init__(
        self,
        call: ForwardedCall,
        max_request_bytes: int,
        requests: AsyncIterator[bytes] | None = None,
    ) -> None:
        self._max_request_bytes = max_request_bytes
        self._peer, self._metadata = call.peer, call.metadata
        self._deadline = None if call.seconds is None else time.monotonic() + call.seconds
        self._requests = requests
        self.replies: asyncio.Queue[Reply] = asyncio.Queue(MAX_UNSENT)  # of a stream
        self.status: Status | None = None  # of `abort`
        self.refused: Status | None = None  # of `admits`, which is what the call ends with
        self.trailing: Metadata = ()

    def time_remaining(self) -> float | None:
        """Return the seconds until the deadline; None: there is none."""
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    def peer(self) -> str:
        """Return the address of the client, as gRPC writes it."""
        return self._peer

    def invocation_metadata(self) -> Metadata:
        """Return the metadata of the call."""
        return self._metadata

    def set_trailing_metadata(self, trailing_metadata: Metadata) -> None:
        """Send metadata at the end."""
        self.trailing = trailing_metadata

    async def abort(
        self, code: grpc.StatusCode, details: str = "", trailing_metadata: Metadata = ()
    ) -> Never:
        """End the call with a status.

        Raises:
            AbortError: always; the handler lets it through.
        """
        self.status = (code, details, tuple(trailing_metadata))
        raise grpc.aio.AbortError

    def admits(self, message: bytes) -> bool:
        """Tell if a message is not larger than the server takes."""
        if len(message) > self._max_request_bytes:
            text = "SERVER: Received message larger than max"
            text = f"{text} ({len(message)} vs. {self._max_request_bytes})"
            self.refused = (grpc.StatusCode.RESOURCE_EXHAUSTED, text, ())
        return self.refused is None

    async def read(self) -> Any:  # noqa: ANN401 (bytes, or grpc's EOF, whose type is private)
        """Return the bytes of the next message of the stream, or grpc.aio.EOF."""
        if self._requests is None:
            return grpc.aio.EOF
        try:
            message = await anext(self._requests)
        except StopAsyncIteration:
            return grpc.aio.EOF
        return message if self.admits(message) else grpc.aio.EOF

    async def write(self, message: bytes) -> None:
        """Send a message of the stream; wait if too many wait for the client already."""
        await self.replies.put(Reply(message))
