"""The project's commands, run in the test's own process."""

import io
import subprocess
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path


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
