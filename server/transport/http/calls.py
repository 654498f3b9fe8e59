"""Calls over HTTP to the methods of a service."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

from google.protobuf.message import Message

from server.api.methods import StreamMethod, UnaryMethod
from server.errors import as_service_error
from server.lifecycle.gate import CallGate

Request = TypeVar("Request")


class HttpCall:
    """The context of a call. To be made in the task that ends when the response has been sent.

    Args:
        peer: address and port of the client.
        deadline: when the caller stops waiting, a time of time.monotonic; None: never.
        gate: the gate that the call passes.
    """

    __slots__ = ("_gate", "_task", "deadline", "peer")

    def __init__(self, peer: str, deadline: float | None, gate: CallGate) -> None:
        self.peer = peer
        self.deadline = deadline
        self._gate = gate
        self._task: Any = asyncio.current_task()

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
    try:
        with await enter(method, gate):
            return await method.function(decode(), call)
    except Exception as error:  # noqa: BLE001 (it ends the call with a status)
        raise as_service_error(error, call.peer) from None


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
