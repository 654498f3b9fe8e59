"""The name of a command as it was started, for its help and errors."""

import sys
from pathlib import Path


def program_name(package: str, console_command: str) -> str:
    """Return the console command if that runs, else `python -m` with the package."""
    if Path(sys.argv[0]).stem == console_command:
        return console_command
    return f"python -m {package}"
