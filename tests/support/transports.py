"""Which transport of gRPC carries the calls of the servers that tests start."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

from server.errors import StartError
from server.transport.native.extension import load_extension

TRANSPORTS = ("python", "native")


@cache
def extension() -> tuple[Any, str]:
    """Return the native transport's module, or None and why it is not there."""
    try:
        return load_extension(), ""
    except StartError as error:
        return None, str(error)


# What a test gets that does not care: what `--transport auto` takes.
USUAL = "native" if extension()[0] else "python"


@dataclass
class Choice:
    """A transport, and how many servers run that were started with it."""

    transport: str
    servers: int = 0


_choices = [Choice(USUAL)]


def chosen_transport() -> str:
    """Return the transport of the servers that are started now."""
    return _choices[-1].transport


@contextmanager
def use_transport(name: str) -> Iterator[None]:
    """Start servers with this transport in the block, which none of them may outlive."""
    choice = Choice(name)
    _choices.append(choice)
    try:
        yield
    finally:
        _choices.remove(choice)
    assert not choice.servers, "a fixture's server outlived its transport: give it --transport"


@contextmanager
def counted() -> Iterator[None]:
    """Count a server of the chosen transport while the block runs."""
    choice = _choices[-1]
    choice.servers += 1
    try:
        yield
    finally:
        choice.servers -= 1
