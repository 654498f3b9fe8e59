"""SIGTERM, SIGINT, SIGHUP and SIGUSR1, handled by the event loop."""

import asyncio
import os
import signal
from collections.abc import Callable

from export.signals import end_at_once_on

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
HARMLESS_SIGNALS = (signal.SIGHUP, signal.SIGUSR1)
SIGNALS_APART_SECONDS = 0.1


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
    """Call back at each SIGHUP; one that means that the terminal is closed ends the process."""
    had_terminal = _has_terminal()

    def receive() -> None:
        if had_terminal and not _has_terminal():
            signal.signal(signal.SIGHUP, signal.SIG_DFL)
            signal.raise_signal(signal.SIGHUP)
        callback()

    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, receive)


def on_user_signal(callback: Callable[[], None]) -> None:
    """Call back at each SIGUSR1."""
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, callback)


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True


def release_signals() -> None:
    """Remove the event loop's signal handlers before it ends, and ignore SIGHUP and SIGUSR1."""
    loop = asyncio.get_running_loop()
    for number in (*STOP_SIGNALS, *HARMLESS_SIGNALS):
        loop.remove_signal_handler(number)
    end_at_once_on(*STOP_SIGNALS)
    for number in HARMLESS_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
