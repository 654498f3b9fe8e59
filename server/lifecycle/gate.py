"""The gate that calls pass: open while the server serves, closed while it drains."""

import asyncio
from collections.abc import Callable
from typing import Never

from server.errors import UnavailableError


class CallGate:
    """Lets calls in until it is closed, and knows when the last one has left."""

    def __init__(self) -> None:
        self.closed = False
        self.running = 0
        self._refusing = asyncio.Event()
        self._refusing.set()
        self._when_closed: list[Callable[[], None]] = []
        self.refused = 0
        self.empty = asyncio.Event()  # set when the gate is closed and the last call has left

    async def refuse(self) -> Never:
        """Refuse a call, the gate being closed: at once, or when `release` says so.

        Raises:
            UnavailableError: always.
        """
        self.refused += 1
        await self._refusing.wait()
        raise UnavailableError("the server is shutting down; call it again when it is back")

    def __enter__(self) -> None:
        """Count a call in."""
        self.running += 1

    def __exit__(self, *_error: object) -> None:
        """Count a call out."""
        self.running -= 1
        if self.closed and not self.running:
            self.empty.set()

    def close(self) -> None:
        """Let no call in from now on."""
        self.closed = True
        if not self.running:
            self.empty.set()
        for callback in list(self._when_closed):
            callback()

    def when_closed(self, callback: Callable[[], None]) -> None:
        """Call back when the gate closes: for calls that would go on for ever."""
        self._when_closed.append(callback)

    def forget(self, callback: Callable[[], None]) -> None:
        """Do not call back any more."""
        self._when_closed.remove(callback)

    def hold(self) -> None:
        """Let refused calls wait, so that callers that retry at once come to rest."""
        self._refusing.clear()

    def release(self) -> None:
        """Refuse the calls that wait."""
        self._refusing.set()
