"""Forward itself: how it is started, by each of its transports."""

import importlib.util
from collections.abc import Sequence
from typing import Literal, get_args

Transport = Literal["python", "native"]
Choice = Literal["auto", "both", "python", "native"]  # of a run
Setting = Literal["auto", "python", "native"]  # of a server
TRANSPORTS: Sequence[Transport] = get_args(Transport)
CHOICES: Sequence[Choice] = get_args(Choice)
EXTENSION = "forward_native"

PORTS = ("--grpc-port", "0", "--http-port", "0", "--metrics-port", "0")
SERVER = ("server", *PORTS, "--log-format", "json", "--device", "cpu")


def forward(transport: Setting = "auto") -> tuple[str, ...]:
    """Return the command of a server with that transport: a module, and its arguments."""
    return (*SERVER, "--transport", transport)


def chosen(choice: Choice) -> tuple[Transport, ...]:
    """Return the transports of a choice; auto: the one that servers take by themselves.

    Raises:
        RuntimeError: the native one is asked for, and not installed.
    """
    installed = importlib.util.find_spec(EXTENSION) is not None
    if choice == "native" and not installed:
        raise RuntimeError(
            f"no module {EXTENSION}: install the native transport with `make native`, or take "
            "--transport python"
        )
    if choice == "auto":
        return ("native",) if installed else ("python",)
    if choice == "both":
        return ("python", "native") if installed else ("python",)
    return (choice,)
