"""A call of the native transport as grpc.aio's context shows it to handlers."""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Never

import grpc

from server.transport.native.extension import Extension, Metadata

MAX_UNSENT = 16  # messages of a stream that wait for the client

Serialize = Callable[[Any], bytes]


class NativeContext:
    """What handlers use of `grpc.aio.ServicerContext`.

    Args:
        extension: carries the call.
        request_flush: is called after each answer; answers of a turn leave together.
    """

    __slots__ = (
        "_deadline",
        "_extension",
        "_metadata",
        "_peer",
        "_received",
        "_request_flush",
        "_sent",
        "_unsent",
        "_waiter",
        "call",
        "end_code",
        "has_ended",
        "method",
        "serialize",
        "status",
    )

    def __init__(
        self,
        extension: Extension,
        request_flush: Callable[[], object],
        event: tuple[Any, ...],
    ) -> None:
        _, self.call, self.method, self._peer, self._metadata, self._deadline, _ = event
        self._extension, self._request_flush = extension, request_flush
        self._received: deque[bytes | None] | None = None  # None at the end: there are no more
        self._waiter: asyncio.Future[None] | None = None  # of `read`
        self._sent: asyncio.Future[None] | None = None  # of `write`
        self._unsent = 0
        self.has_ended = False  # without a response: nobody waits for one
        self.end_code: int | None = None  # which the extension has sent then
        self.serialize: Serialize = bytes
        self.status: tuple[grpc.StatusCode, str, Metadata] | None = None  # of `abort`

    def time_remaining(self) -> float | None:
        """Return the seconds until the deadline; None: there is none."""
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    def peer(self) -> str:
        """Return the address of the client, as gRPC writes it."""
        return str(self._peer)

    def invocation_metadata(self) -> Metadata:
        """Return the metadata of the call."""
        found: Metadata = self._metadata
        return found

    def set_trailing_metadata(self, trailing_metadata: Metadata) -> None:
        """Do nothing: handlers send the id of the request, as the extension does by itself."""

    async def abort(
        self, code: grpc.StatusCode, details: str = "", trailing_metadata: Metadata = ()
    ) -> Never:
        """End the call with a status.

        Raises:
            AbortError: always; the handler lets it through.
        """
        self.status = (code, details, trailing_metadata)
        raise grpc.aio.AbortError

    async def read(self) -> Any:  # noqa: ANN401 (bytes, or grpc's EOF, whose type is private)
        """Return the bytes of the next message of the stream, or grpc.aio.EOF."""
        received = self._received
        if received is None:
            received = self._received = deque()
        while not received:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        message = received[0]
        if message is None:
            return grpc.aio.EOF
        received.popleft()
        self._extension.taken(self.call)
        self._request_flush()
        return message

    def receive(self, message: bytes | None) -> None:
        """Take a message of the stream; None: it was the last before this."""
        if self._received is None:
            self._received = deque()
        self._received.append(message)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def write(self, message: object) -> None:
        """Send a message of the stream; wait if too many wait for the client already."""
        self._extension.send(self.call, self.serialize(message))
        self._request_flush()
        self._unsent += 1
        while self._unsent >= MAX_UNSENT:
            self._sent = asyncio.get_running_loop().create_future()
            await self._sent

    def note_sent(self) -> None:
        """Count a message out that has gone to the client."""
        self._unsent -= 1
        if self._sent is not None and not self._sent.done():
            self._sent.set_result(None)
