"""What the command says on standard error, and the text that a terminal may be given."""

import sys
from pathlib import Path

CONSOLE_COMMAND = "forward-client"


def program_name() -> str:
    """Return the command as it was started, for its help and errors."""
    started = Path(sys.argv[0])  # of `python -m` the path of a __main__.py
    if started.stem == CONSOLE_COMMAND:
        return CONSOLE_COMMAND
    return f"python -m {'client' if started.parent.name == 'client' else 'forward_client'}"


def complain(text: str) -> None:
    """Print what is wrong on standard error, in one line."""
    print(f"{program_name()}: {printable(text)}", file=sys.stderr)


def printable(text: str) -> str:
    """Return one line that can't steer a terminal: control characters as their escapes.

    Names of files and labels may hold some.
    """
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )
