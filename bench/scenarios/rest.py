"""What a server takes of memory when it is ready and nothing has called it yet."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from bench.load.processes import running
from bench.servers.forward import Transport, forward

SETTLE_SECONDS = 1.0


@dataclass(frozen=True)
class Rest:
    """Memory in MiB."""

    resident: float
    proportional: float  # a share of what other processes have in memory too


def at_rest(transports: Sequence[Transport], rounds: int) -> dict[Transport, list[Rest]]:
    """Start a server of each transport in turn, by itself, so many times."""
    seen: dict[Transport, list[Rest]] = {transport: [] for transport in transports}
    for _ in range(rounds):
        for transport in transports:
            with running(*forward(transport)) as served:
                time.sleep(SETTLE_SECONDS)
                rest = Rest(served.resident_mebibytes(), served.proportional_mebibytes())
                seen[transport].append(rest)
    return seen
