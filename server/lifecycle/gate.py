"""The gate that every call passes: open while the server serves, closed while it drains."""

import asyncio
from collections.abc import Callable
from typing import Never

from server.errors import DrainingError


class CallGate:
    """Admits calls until it is closed, and signals when the last one has ended."""

    def __init__(self) -> None:
        self.closed = False
        self.running = 0
        self._may_refuse = asyncio.Event()
        self._may_refuse.set()
        self._close_callbacks: list[Callable[[], None]] = []
        self.refused = 0
        self.empty = asyncio.Event()  # set when the gate is closed and the last call has ended

    async def refuse(self) -> Never:
        """Refuse a call, the gate being closed: at once, or when `refuse_delayed` is called.

        Raises:
            DrainingError: always.
        """
        self.refused += 1
        await self._may_refuse.wait()
        raise DrainingError("the server is shutting down; call it again when it is back")

    def __enter__(self) -> None:
        """Count a call in."""
        self.running += 1

    def __exit__(self, *_error: object) -> None:
        """Count a call out."""
        self.running -= 1
        if self.closed and not self.running:
            self.empty.set()

    def close(self) -> None:
        """Admit no call from now on."""
        self.closed = True
        if not self.running:
            self.empty.set()
        for callback in list(self._close_callbacks):
            callback()

    def add_close_callback(self, callback: Callable[[], None]) -> None:
        """Call back when the gate closes: for calls without an end of their own."""
        self._close_callbacks.append(callback)

    def remove_close_callback(self, callback: Callable[[], None]) -> None:
        """Do not call back any more."""
        self._close_callbacks.remove(callback)

    def delay_refusals(self) -> None:
        """Delay the refusal of calls, so that clients that retry at once send no more."""
        self._may_refuse.clear()

    def refuse_delayed(self) -> None:
        """Refuse the calls whose refusal was delayed."""
        self._may_refuse.set()
