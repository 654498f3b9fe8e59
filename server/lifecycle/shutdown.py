"""Graceful shutdown: no call is lost."""

import asyncio
import contextlib
import time
from collections.abc import Coroutine, Sequence
from typing import Protocol

import structlog

from server.lifecycle.gate import CallGate
from server.lifecycle.state import ServingState

# Calls that began before the refusal, as their callers see it, have so long to arrive.
ARRIVAL_SECONDS = 0.5
ARRIVAL_STEPS = 10
MAX_ARRIVAL_SECONDS = 5.0
QUIET_SECONDS = 0.1
MAX_QUIET_SECONDS = 2.0  # with new clients all the time it would never be quiet

log = structlog.get_logger()


class Transport(Protocol):
    """What carries calls to the services; `grpc.aio.Server` is one."""

    def stop(self, grace: float | None) -> Coroutine[object, object, None]:
        """Accept no more calls; end those that still run after `grace` seconds."""
        ...


async def drain(
    transports: Sequence[Transport],
    state: ServingState,
    gate: CallGate,
    timeout_seconds: float,
    delay_seconds: float = 0.0,
) -> None:
    """Report NOT_SERVING, serve on for the delay, refuse new calls, let running calls finish.

    What is on its way when the delay is over is served too: only calls that begin
    later are refused. gRPC's own stop ends calls that have arrived but did not reach their handler
    yet with CANCELLED (grpc/grpc#41785). So the gate closes first, and the transports
    stop at a moment when no call is on its way.
    """
    state.drain()
    await asyncio.sleep(delay_seconds)
    await _wait_for_arriving_calls()
    log.info("refusing calls", running=gate.running)
    deadline = time.monotonic() + timeout_seconds
    state.stop()
    gate.close()
    try:
        await asyncio.wait_for(gate.empty.wait(), timeout_seconds)
    except TimeoutError:
        log.warning("calls did not finish in time", running=gate.running)
    else:
        gate.delay_refusals()
        left = max(0, deadline - time.monotonic())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(_wait_until_quiet(gate), min(left, MAX_QUIET_SECONDS))
    left = max(0, deadline - time.monotonic())
    stopping = asyncio.gather(*(transport.stop(left) for transport in transports))
    await asyncio.sleep(0)  # the stop has begun
    gate.refuse_delayed()
    await stopping


async def _wait_for_arriving_calls() -> None:
    """Wait for calls that are on their way, not counting time when the event loop was blocked.

    On a busy machine it may be for a second. Calls that came meanwhile are accepted after that,
    and would find the gate closed.
    """
    latest = time.monotonic() + MAX_ARRIVAL_SECONDS
    for _ in range(ARRIVAL_STEPS):
        await asyncio.sleep(ARRIVAL_SECONDS / ARRIVAL_STEPS)
        if time.monotonic() > latest:
            return


async def _wait_until_quiet(gate: CallGate) -> None:
    """Wait until no call has come for a moment."""
    refused = -1
    while refused != gate.refused:
        refused = gate.refused
        await asyncio.sleep(QUIET_SECONDS)
