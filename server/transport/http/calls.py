"""Calls over HTTP to the methods of a service."""

import asyncio
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import Any, TypeVar

from google.protobuf.message import Message

from server.api.methods import StreamMethod, UnaryMethod
from server.errors import as_service_error
from server.lifecycle.gate import CallGate
from server.observability.records import CallRecord

Request = TypeVar("Request")


class HttpCall:
    """The context of a call. To be made in the task that ends when the response has been sent.

    Args:
        record: what is known of the call.
        deadline: when the caller stops waiting, a time of time.monotonic; None: never.
        gate: the gate that the call passes.
    """

    __slots__ = ("_gate", "_task", "deadline", "record")

    def __init__(self, record: CallRecord, deadline: float | None, gate: CallGate) -> None:
        self.record = record
        self.deadline = deadline
        self._gate = gate
        self._task: Any = asyncio.current_task()

    @property
    def peer(self) -> str:
        """Address and port of the client."""
        return self.record.peer

    def add_done_callback(self, callback: Callable[[], None]) -> None:
        """Call back once, when the response has been sent or the call has ended without one."""
        self._task.add_done_callback(lambda _: callback())

    def add_drain_callback(self, callback: Callable[[], None]) -> None:
        """Call back, while the call goes on, when the server wants it to end soon."""
        self._gate.add_close_callback(callback)
        self.add_done_callback(lambda: self._gate.remove_close_callback(callback))


async def answer(
    method: UnaryMethod[Request], decode: Callable[[], Request], call: HttpCall, gate: CallGate
) -> Message:
    """Return the response to a request, which `decode` returns.

    Raises:
        ServiceError: whatever went wrong.
    """
    with HowItEnds(call), await enter(method, gate):
        return await method.function(decode(), call)


class HowItEnds:
    """Puts on record how a call ends; what it fails with leaves as a ServiceError."""

    def __init__(self, call: HttpCall) -> None:
        self._call = call

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(
        self, _type: object, error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        """Set the status of the record.

        Raises:
            ServiceError: whatever went wrong.
        """
        record, deadline = self._call.record, self._call.deadline
        if error is None:
            record.status = "OK"
        elif isinstance(error, Exception):
            failure = as_service_error(error, record.peer, record.request_id)
            record.status, record.rejection = failure.status, failure.rejection
            raise failure from None
        else:  # it was cancelled, or its generator closed
            is_late = deadline is not None and time.monotonic() >= deadline
            record.status = "DEADLINE_EXCEEDED" if is_late else "CANCELLED"


async def enter(
    method: UnaryMethod[Any] | StreamMethod[Any], gate: CallGate
) -> AbstractContextManager[None]:
    """Return what a call of a method runs in, so that a drain waits for it.

    Raises:
        UnavailableError: the gate is closed to the method.
    """
    if method.served_while_draining:
        return nullcontext()
    if gate.closed:
        await gate.refuse()
    return gate
