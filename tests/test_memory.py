"""What a request brought is let go of when it has ended, however it ended."""

import numpy as np
import psutil
import pytest

from client import ForwardClient, ForwardError
from tests.servers import start_server

REQUESTS, REQUEST_MEBIBYTES = 60, 3


def test_a_refused_request_is_let_go_of_at_once_and_not_when_garbage_is_collected() -> None:
    """Each is of 3 MiB; so few calls never make the collector run."""
    images = np.full((1000, 28, 28), 2, np.float32)  # out of range
    with start_server() as server, ForwardClient(server.address) as client:
        process = psutil.Process(server.process.pid)
        before = None
        for number in range(REQUESTS):
            if number == REQUESTS // 6:
                before = process.memory_info().rss
            with pytest.raises(ForwardError, match="expected values from 0 to 1"):
                client.predict(images)
        assert before is not None
        growth = (process.memory_info().rss - before) / 2**20
        assert growth < REQUESTS * REQUEST_MEBIBYTES / 4
