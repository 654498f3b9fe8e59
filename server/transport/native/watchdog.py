"""Ends the process if the extension's thread hangs: a server must not be up and answer nothing."""

import os
import threading
from contextlib import suppress

from server.transport.native.extension import Extension

HUNG_SECONDS = 30
TICK_SECONDS = 1.0  # the extension's thread beats twice in it
STDERR = 2
EXIT_STATUS = 70  # EX_SOFTWARE of sysexits.h


class Watchdog:
    """Watches the beats of the extension's thread, in a thread of its own.

    The seconds are counted in its own ticks: while the whole process is stopped, or gets no CPU,
    there are none, and nothing is held against the other thread.
    """

    def __init__(self, extension: Extension) -> None:
        self._extension = extension
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="forward-watchdog", daemon=True)

    def start(self) -> None:
        """Watch from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Watch no more: the extension's thread has ended, or is to."""
        self._ended.set()

    def _watch(self) -> None:
        beats, silent = self._extension.beats(), 0
        while not self._ended.wait(TICK_SECONDS):
            before, beats = beats, self._extension.beats()
            silent = silent + 1 if beats == before else 0
            if silent * TICK_SECONDS >= HUNG_SECONDS:
                _end_process()


def _end_process() -> None:
    # Nothing is waited for, not even whoever reads stderr: what hangs may hold anything.
    line = f"forward-native: forward-io made no progress for {HUNG_SECONDS} s, the process ends\n"
    with suppress(OSError):
        os.set_blocking(STDERR, False)
        os.write(STDERR, line.encode())
    os._exit(EXIT_STATUS)
