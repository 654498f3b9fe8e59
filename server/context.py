"""What a service knows of a call, whatever the transport."""

from collections.abc import Callable
from typing import Protocol

from server.observability.records import CallRecord


class CallContext(Protocol):
    """A call beside its request; cancellation cancels the coroutine that answers it."""

    @property
    def peer(self) -> str:
        """Where it comes from, for the log."""
        ...

    @property
    def record(self) -> CallRecord:
        """What is known of the call; the service puts into it what it finds out."""
        ...

    @property
    def deadline(self) -> float | None:
        """When the caller stops waiting, a time of time.monotonic; None: never."""
        ...

    def add_done_callback(self, callback: Callable[[], None]) -> None:
        """Call back once, when the response has been sent or the call has ended without one."""
        ...

    def add_drain_callback(self, callback: Callable[[], None]) -> None:
        """Call back, while the call goes on, when the server wants it to end soon."""
        ...
