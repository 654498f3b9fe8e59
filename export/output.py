"""Standard output and error of a command: a failed write does not stop its work."""

import io
import os
import select
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from rich.console import Console

if TYPE_CHECKING:  # that of collections.abc comes with Python 3.12
    from _typeshed import ReadableBuffer


class _Descriptor(io.FileIO):
    """Writes to a file descriptor; on an error it drops the data and keeps the error."""

    failure: OSError | None = None

    def write(self, data: "ReadableBuffer", /) -> int:
        try:
            while (written := super().write(data)) is None:  # non-blocking and full
                select.select([], [self], [])
        except OSError as error:  # a full disk, a closed pipe
            self.failure = error
            return memoryview(data).nbytes
        return written


def run_command(program: str, main: Callable[[], int]) -> int:
    """Run a command that goes on when its output can't be written; return its exit status.

    A character that the encoding lacks is replaced. Output that can't be written is dropped:
    silently if the reader closed the pipe, else with a line on standard error and status 1.
    """
    _fill_closed_descriptors()
    output = _guard("stdout", "replace")
    _guard("stderr", "backslashreplace")
    try:
        status = main()
    except SystemExit as ended:  # of argparse, after --help or a wrong setting
        status = int(ended.code or 0)
    sys.stdout.flush()
    if output.failure is None or isinstance(output.failure, BrokenPipeError):
        return status
    print_error(
        program,
        f"standard output can't be written: {output.failure.strerror}; "
        "only the printed output is lost",
    )
    return status or 1


def _fill_closed_descriptors() -> None:
    """Open /dev/null for what the caller closed (`>&-`): else the next file gets its number."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest that is free


def _guard(name: str, errors: str) -> _Descriptor:
    """Replace `sys.stdout` or `sys.stderr` by a stream that never raises."""
    descriptor = {"stdout": 1, "stderr": 2}[name]
    raw = _Descriptor(descriptor, "w", closefd=False)
    old = getattr(sys, name)
    encoding, by_line = "utf-8", True
    if isinstance(old, io.TextIOWrapper):
        with suppress(OSError):
            old.flush()
        encoding, by_line = old.encoding, old.line_buffering or old.write_through
    stream = io.TextIOWrapper(
        io.BufferedWriter(raw), encoding=encoding, errors=errors, line_buffering=by_line
    )
    setattr(sys, name, stream)
    return raw


def print_error(program: str, text: str) -> None:
    """Print an error on standard error, in as many lines as the text has."""
    print(f"{program}:", "\n".join(map(printable, text.split("\n"))), file=sys.stderr)


def printable(text: str) -> str:
    """Return the text as one line, control characters as their escapes.

    Names of files and stages may contain some, which would control the terminal.
    """
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def make_console() -> Console:
    """Return standard output for tables and colours; it prints text unchanged, brackets too."""
    return Console(highlight=False, markup=False, emoji=False)
