"""Lines on standard error: writing one never blocks and never fails.

A thread writes them. What it can't write (the reader of a pipe is gone, a disk is full, nobody
reads) is dropped and counted: a log is worth less than the calls that are answered meanwhile.
"""

import atexit
import io
import os
import select
import stat
import sys
import threading
from contextlib import suppress
from queue import Empty, SimpleQueue

MAX_WAITING = 1000  # lines; some megabytes if each has a traceback
MAX_TOGETHER = 100  # lines that are written at a time
NEWLINE = ord("\n")
FLUSH_SECONDS = 1.0  # for a reader that is slow; one that does not read gets no more


class LineWriter:
    """Writes to a file descriptor, or drops all if it is None; any thread may use it.

    A SimpleQueue, for a destructor or a signal may interrupt a writer and write itself.
    """

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor
        self._waiting: SimpleQueue[bytes | threading.Event] = SimpleQueue()
        self._counting = threading.RLock()
        self._is_in_line = False  # the last line was written in part
        self.dropped = 0  # lines
        thread = threading.Thread(target=self._write_all, name="forward-log", daemon=True)
        self._has_thread = True
        try:
            thread.start()
        except RuntimeError:  # no thread is available; waiting is better than losing the line
            self._has_thread = False

    def write(self, text: str) -> None:
        """Write lines, soon and in order."""
        try:
            data = text.encode(errors="backslashreplace")
            if self._waiting.qsize() >= MAX_WAITING:
                self._drop(data)
            elif self._has_thread:
                self._waiting.put(data)
            else:
                self._write(data)
        except Exception:  # noqa: BLE001 (say, short of memory: nobody who logs is to fail for it)
            self._drop(b"\n")

    def flush(self) -> None:
        """Wait until what was written so far is out, but not for long."""
        if self._has_thread:
            done = threading.Event()
            self._waiting.put(done)
            done.wait(FLUSH_SECONDS)

    def _drop(self, data: bytes) -> None:
        with self._counting:
            self.dropped += max(data.count(b"\n"), 1)

    def _write_all(self) -> None:
        """Write what waits, as much as there is at a time: every write is a change of threads."""
        while True:
            item = self._waiting.get()
            lines: list[bytes] = []
            with suppress(Empty):
                while not isinstance(item, threading.Event):
                    lines.append(item)
                    if len(lines) == MAX_TOGETHER:
                        break
                    item = self._waiting.get_nowait()
            if lines:
                self._write(b"".join(lines))
            if isinstance(item, threading.Event):
                item.set()

    def _write(self, data: bytes) -> None:
        if self._descriptor is None:
            self._drop(data)
            return
        rest = memoryview(data)
        try:
            if self._is_in_line:  # after a part of a line, the next begins on a line of its own
                self._write_some(self._descriptor, b"\n")
                self._is_in_line = False
            while rest:
                written = self._write_some(self._descriptor, rest)
                self._is_in_line = rest[written - 1] != NEWLINE if written else self._is_in_line
                rest = rest[written:]
        except Exception:  # noqa: BLE001 (whatever it is, the next line may be written)
            self._drop(bytes(rest))

    @staticmethod
    def _write_some(descriptor: int, data: bytes | memoryview) -> int:
        """Write as much as fits, waiting until something does; return the bytes that did."""
        while True:
            try:
                return os.write(descriptor, data)
            except BlockingIOError:  # it was made so by whoever else has it
                writable = select.poll()
                writable.register(descriptor, select.POLLOUT)
                writable.poll()


class StandardError(io.TextIOBase):
    """Replaces `sys.stderr`, so that a print there, by Python itself too, does not fail."""

    encoding = "utf-8"
    errors = "backslashreplace"

    def __init__(self, lines: LineWriter, *, is_terminal: bool) -> None:
        self._lines = lines
        self._is_terminal = is_terminal

    def writable(self) -> bool:
        """Tell that it can be written to."""
        return True

    def write(self, text: str) -> int:
        """Write text; return its length."""
        self._lines.write(text)
        return len(text)

    def isatty(self) -> bool:
        """Tell if it ends in a terminal."""
        return self._is_terminal


def redirect_standard_error() -> LineWriter:
    """Make writes to standard error neither fail nor block; return the writer."""
    original = sys.stderr
    # None, despite the stubs: it was closed before the start.
    is_open = bool(original)
    is_terminal = is_open and original.isatty()
    lines = LineWriter(os.dup(2) if is_open else None)
    sys.stderr = StandardError(lines, is_terminal=is_terminal)
    atexit.register(lines.flush)
    _never_wait_at(2)
    return lines


def _never_wait_at(descriptor: int) -> None:
    """Let writes to a pipe that is full fail in place of waiting.

    gRPC and ONNX Runtime write there by themselves, and anybody who connects can make gRPC do
    so: with a pipe that nobody reads it would stand still. The pipe is opened anew, because the
    flag counts for all who share the descriptor, a shell perhaps.
    """
    with suppress(OSError):  # say, it is another user's; then they may wait
        if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
            own = os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK)
            os.dup2(own, descriptor)
            os.close(own)
