"""Many machines: `python -m deploy.ray serve` and `python -m deploy.ray score`."""

import sys
from collections.abc import Sequence
from importlib import import_module

from export.output import print_error, run_command

PROGRAM = "python -m deploy.ray"
EXTRA = "forward-server[ray]"
COMMANDS = {
    "serve": "answer calls from a Ray cluster, by as many replicas as the load needs",
    "score": "classify a folder of images with all processors of a Ray cluster",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return the exit status."""
    command, *rest = (sys.argv[1:] if arguments is None else arguments) or [""]
    if command in {"-h", "--help"}:
        print(_usage())
        return 0
    if command not in COMMANDS:
        print(f"{PROGRAM}: {command!r} is no command\n{_usage()}", file=sys.stderr)
        return 2
    try:
        console = import_module(f"deploy.ray.{command}.console")
    except ModuleNotFoundError as error:
        if (error.name or "").startswith(("deploy", "server", "export")):
            raise
        print_error(PROGRAM, f"needs {error.name!r}; install {EXTRA}")
        return 1
    status: int = console.main(rest)
    return status


def _usage() -> str:
    commands = "\n".join(f"  {name}  {text}" for name, text in COMMANDS.items())
    return f"usage: {PROGRAM} COMMAND ...; each has --help\n\n{commands}"


if __name__ == "__main__":
    sys.exit(run_command(PROGRAM, main))
