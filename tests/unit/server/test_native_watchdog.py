"""When the watchdog ends the process, by the beats that it is shown."""

import time
from itertools import count
from typing import Any, cast

import pytest

from server.transport.native import watchdog
from server.transport.native.watchdog import Watchdog


class Beating:
    """Beats, until it doesn't."""

    def __init__(self) -> None:
        self.numbers = count()
        self.hangs = False
        self.last = 0

    def beats(self) -> int:
        if not self.hangs:
            self.last = next(self.numbers)
        return self.last


def test_what_beats_lives_and_what_stops_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[float] = []
    monkeypatch.setattr(watchdog, "TICK_SECONDS", 0.01)
    monkeypatch.setattr(watchdog, "HUNG_SECONDS", 0.05)
    monkeypatch.setattr(watchdog, "_end_process", lambda: ended.append(time.monotonic()))
    beating = Beating()
    watched = Watchdog(cast("Any", beating))
    watched.start()
    time.sleep(0.3)
    assert not ended
    beating.hangs = True
    deadline = time.monotonic() + 20
    while not ended and time.monotonic() < deadline:
        time.sleep(0.01)
    watched.stop()
    assert ended
