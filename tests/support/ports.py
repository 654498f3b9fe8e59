"""Ports for servers that a test must name before they listen."""

import random
import socket
from pathlib import Path

LOWEST = 10_000
EPHEMERAL_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_port() -> int:
    """Return a port of the loopback address that the system gives to nobody by itself.

    One that the system chose (port 0) can go to another test as soon as it is closed here.
    """
    first_ephemeral = int(EPHEMERAL_RANGE.read_text().split()[0])
    while True:
        port = random.randrange(LOWEST, first_ephemeral)  # noqa: S311 (no secret)
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:  # somebody listens there
            continue
        return port
