"""Many large messages at once on one connection, by a client that sends them interleaved."""

import shutil

import pytest

from bench.load.h2load import Shape, frame, load
from bench.load.processes import running
from bench.load.requests import Request
from bench.servers.forward import Setting, chosen, forward

CALLS = 48  # of 800 kB each: several times the window that a connection begins with
TRANSPORTS: tuple[Setting, ...] = chosen("both")


@pytest.mark.skipif(not shutil.which("h2load"), reason="no h2load (nghttp2-client)")
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_interleaved_large_messages_are_all_answered(transport: Setting) -> None:
    request = Request("Predict", 1024)
    with running(*forward(transport)) as served:
        body = frame(request.message())
        seen = load(served.url(request.path), body, Shape(CALLS, 1), requests=CALLS)
    assert (seen.requests, seen.failed) == (CALLS, 0)
