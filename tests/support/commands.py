"""The project's commands, run in the test's own process."""

import io
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import chdir, redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from forward_client import __main__ as client
from tests.support.bundles import REPOSITORY


def run_here(
    main: Callable[[Sequence[str]], int], *arguments: str | Path
) -> subprocess.CompletedProcess[str]:
    """Run a command without a process of its own; return what one would have given.

    It is for tests of what a command does: this process has imported torch already, which takes
    seconds. What a command is to its shell (signals, output that can't be written, exit status of
    the interpreter) takes a real process.
    """
    output, error = io.StringIO(), io.StringIO()
    with redirect_stdout(output), redirect_stderr(error):
        status = main([str(argument) for argument in arguments])
    return subprocess.CompletedProcess(arguments, status, output.getvalue(), error.getvalue())


def run_client(
    *arguments: str | Path,
    address: str = "",
    encoding: str = "utf-8",
    columns: int = 80,
    variables: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run `python -m client` so, with standard output of an encoding and a width.

    Without an address it calls the default one, or what `arguments` or `variables` say.
    """
    output, error = io.TextIOWrapper(io.BytesIO(), encoding), io.StringIO()
    words = [str(word) for word in (*arguments, *(("--address", address) if address else ()))]
    at_pipes = signal.getsignal(signal.SIGPIPE)  # which the command changes
    with (
        pytest.MonkeyPatch.context() as patch,
        redirect_stdout(output),
        redirect_stderr(error),
        chdir(REPOSITORY),
    ):
        patch.setattr(sys, "argv", ["client/__main__.py"])  # what it calls itself in errors
        for name, value in {"COLUMNS": str(columns), **(variables or {})}.items():
            patch.setenv(name, value)
        try:
            status = client.main(words)
        except SystemExit as ended:  # of argparse
            status = int(str(ended.code))
        finally:
            signal.signal(signal.SIGPIPE, at_pipes)
    output.seek(0)
    return subprocess.CompletedProcess(words, status, output.read(), error.getvalue())
