"""Health, and the way from a signal to the end without losing a call."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from typing import Never

import grpc
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc

from export.signals import end_at_once_on
from server.ending import abort
from server.errors import UnavailableError, shown

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
SIGNALS_APART_SECONDS = 0.1
# Calls that began before the refusal, as their callers see it, have so long to arrive.
ARRIVAL_SECONDS = 0.5
ARRIVAL_STEPS = 10
MOST_ARRIVAL_SECONDS = 5.0
QUIET_SECONDS = 0.1
MOST_QUIET_SECONDS = 2.0  # with new callers all the time it would never be quiet

Response = health_pb2.HealthCheckResponse
log = structlog.get_logger()

Context = grpc.aio.ServicerContext[health_pb2.HealthCheckRequest, Response]


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


class Health(health_pb2_grpc.HealthServicer):
    """grpc.health.v1 for the server ("") and each service by name.

    Unlike grpcio's own servicer it ends its watches, after their last NOT_SERVING,
    when the server is about to stop: a watcher would hold up the drain for ever.
    Not before: a client whose watch ends begins the next one at once.
    """

    def __init__(self, services: tuple[str, ...]) -> None:
        self._known = ("", *services)
        self._draining = asyncio.Event()
        self._closed = asyncio.Event()

    def drain(self) -> None:
        """Report NOT_SERVING from now on."""
        self._draining.set()

    @property
    def is_draining(self) -> bool:
        """Tell if the server takes no more work soon, or takes none now."""
        return self._draining.is_set()

    def close(self) -> None:
        """End the watches."""
        self._closed.set()

    def _status(self, service: str) -> int:
        if service not in self._known:
            return Response.SERVICE_UNKNOWN
        if self._draining.is_set():
            return Response.NOT_SERVING
        return Response.SERVING

    async def Check(  # noqa: N802 (the proto's name)
        self,
        request: health_pb2.HealthCheckRequest,
        context: Context,
    ) -> Response:
        """Return the status of a service; NOT_FOUND if it is not served."""
        status = self._status(request.service)
        if status == Response.SERVICE_UNKNOWN:
            known = ", ".join(repr(name) for name in self._known)
            text = f"no service {shown(request.service)}; health is known of {known}"
            await abort(context, grpc.StatusCode.NOT_FOUND, text)
        return Response(status=status)

    async def Watch(  # noqa: N802 (the proto's name)
        self,
        request: health_pb2.HealthCheckRequest,
        context: Context,  # noqa: ARG002 (the signature of a call)
    ) -> AsyncIterator[Response]:
        """Yield the status of a service now and at its change."""
        status = self._status(request.service)
        yield Response(status=status)
        await self._draining.wait()
        if self._status(request.service) != status:
            yield Response(status=self._status(request.service))
        await self._closed.wait()


def stop_signal() -> asyncio.Future[str]:
    """Return the name of the first SIGTERM or SIGINT to come; a second ends the process at once."""
    loop = asyncio.get_running_loop()
    received: asyncio.Future[str] = loop.create_future()

    def receive(number: signal.Signals) -> None:
        if received.done():
            end_at_once_on(*STOP_SIGNALS)
            signal.raise_signal(number)
            return
        # Not at once: a second one that is on its way to the loop by now would be lost.
        # The loop keeps its own handlers: without one, process 1 would lose a signal.
        loop.call_later(SIGNALS_APART_SECONDS, end_at_once_on, *STOP_SIGNALS)
        received.set_result(number.name)

    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, receive, number)
    return received


def on_hangup(callback: Callable[[], None]) -> None:
    """Call back at each SIGHUP; one that tells that the terminal is gone ends the process."""
    had_terminal = _has_terminal()

    def receive() -> None:
        if had_terminal and not _has_terminal():
            signal.signal(signal.SIGHUP, signal.SIG_DFL)
            signal.raise_signal(signal.SIGHUP)
        callback()

    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, receive)


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True


def leave_signals() -> None:
    """Take the signals from the event loop, which is about to end: SIGHUP does nothing any more."""
    loop = asyncio.get_running_loop()
    for number in (*STOP_SIGNALS, signal.SIGHUP):
        loop.remove_signal_handler(number)
    end_at_once_on(*STOP_SIGNALS)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


async def drain(
    server: grpc.aio.Server,
    health: Health,
    gate: CallGate,
    timeout_seconds: float,
    delay_seconds: float = 0.0,
) -> None:
    """Report NOT_SERVING, serve on for the delay, refuse new calls, let running calls finish.

    What is on its way when the delay is over is served too: only calls that begin
    later are refused. gRPC's own stop ends calls that have arrived but did not reach their handler
    yet with CANCELLED (grpc/grpc#41785). So the gate closes first, and the server
    stops at a moment when no call is on its way.
    """
    health.drain()
    await asyncio.sleep(delay_seconds)
    await _arrive()
    log.info("refusing calls", running=gate.running)
    deadline = time.monotonic() + timeout_seconds
    health.close()
    gate.close()
    try:
        await asyncio.wait_for(gate.empty.wait(), timeout_seconds)
    except TimeoutError:
        log.warning("calls did not finish in time", running=gate.running)
    else:
        gate.hold()
        left = max(0, deadline - time.monotonic())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(_quiet(gate), min(left, MOST_QUIET_SECONDS))
    stopping = asyncio.create_task(server.stop(max(0, deadline - time.monotonic())))
    await asyncio.sleep(0)  # the stop has begun
    gate.release()
    await stopping


async def _arrive() -> None:
    """Wait for what is on its way; time in which the event loop stood still does not count.

    On a machine that is short of processors it may for a second; calls that came are taken in after
    it, and they would find the gate closed.
    """
    latest = time.monotonic() + MOST_ARRIVAL_SECONDS
    for _ in range(ARRIVAL_STEPS):
        await asyncio.sleep(ARRIVAL_SECONDS / ARRIVAL_STEPS)
        if time.monotonic() > latest:
            return


async def _quiet(gate: CallGate) -> None:
    """Wait until no call has come for a moment."""
    refused = -1
    while refused != gate.refused:
        refused = gate.refused
        await asyncio.sleep(QUIET_SECONDS)
