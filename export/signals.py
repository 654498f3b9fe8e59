"""Signals that end a command at once. Imported before the rest, so it imports nothing slow."""

import os
import signal
from collections.abc import Callable
from types import FrameType

Action = Callable[[int, FrameType | None], None] | signal.Handlers


def end_at_once(number: int, _frame: FrameType | None) -> None:
    """End the process with the status that a shell shows for the signal; no clean-up."""
    os._exit(128 + number)


def ending_action() -> Action:
    """Return the action that ends this process at once.

    The kernel discards a signal to process 1 of a container whose action is the default one.
    """
    return end_at_once if os.getpid() == 1 else signal.SIG_DFL


def end_at_once_on(*numbers: signal.Signals) -> None:
    """Let signals end the process at once, without a traceback; an ignored signal stays ignored."""
    for number in numbers:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, ending_action())


def interrupt_on(number: signal.Signals) -> None:
    """Let a signal raise KeyboardInterrupt instead of ending the process."""
    if signal.getsignal(number) is not signal.SIG_IGN:
        signal.signal(number, signal.default_int_handler)
