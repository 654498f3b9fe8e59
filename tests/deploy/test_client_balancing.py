"""One client, several servers: the pods behind a headless Service, or a list of addresses."""

import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from forward_client import ForwardClient
from tests.support.names import start_name_server
from tests.support.ports import free_port
from tests.support.servers import RunningServer, handled, start_server, wait_until

HOSTS = ("127.0.0.1", "127.0.0.2", "127.0.0.3")
IMAGE = np.zeros((1, 28, 28), np.uint8)
CALLS = 60
pytestmark = pytest.mark.one_transport  # the client decides which server gets a call


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def replicas(port: int) -> Iterator[Sequence[RunningServer]]:
    """Three servers on one port of three addresses, as three pods are."""
    with ExitStack() as stack:
        yield [
            stack.enter_context(
                start_server(
                    *("--host", host, "--grpc-port", str(port)),
                    *("--metrics-host", "127.0.0.1", "--drain-delay", "4"),
                )
            )
            for host in HOSTS
        ]


def answered(replicas: Sequence[RunningServer]) -> list[float]:
    """Return how many calls each has answered."""
    return [handled(each, "Predict", "OK") for each in replicas]


def connect(client: ForwardClient, replicas: Sequence[RunningServer]) -> list[float]:
    """Call until every replica has answered; return how many calls each has by then."""
    before = answered(replicas)

    def each_was_called() -> bool:
        client.predict(IMAGE)
        return all(now > then for now, then in zip(answered(replicas), before, strict=True))

    wait_until(each_was_called)
    return answered(replicas)


def check_turns(address: str, replicas: Sequence[RunningServer]) -> None:
    """Check that calls to an address go to each replica in turn."""
    with ForwardClient(address, timeout_seconds=60) as client:
        before = connect(client, replicas)
        for _ in range(CALLS):
            client.predict(IMAGE)
    calls = [now - then for now, then in zip(answered(replicas), before, strict=True)]
    assert calls == [CALLS / len(HOSTS)] * len(HOSTS)


def calls_reach(client: ForwardClient, server: RunningServer) -> bool:
    """Tell if a server gets any of some calls."""
    before = answered([server])
    for _ in range(CALLS):
        client.predict(IMAGE)
    return answered([server]) != before


def test_calls_go_to_every_address_of_a_name(port: int, replicas: Sequence[RunningServer]) -> None:
    with start_name_server(HOSTS) as names:
        check_turns(f"dns://127.0.0.1:{names.port}/forward-headless:{port}", replicas)
        assert names.questions


def test_calls_go_to_every_address_of_a_list(port: int, replicas: Sequence[RunningServer]) -> None:
    check_turns("ipv4:" + ",".join(f"{host}:{port}" for host in HOSTS), replicas)


def test_servers_whose_health_needs_a_token_are_called(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("secret\n")
    with start_server("--token-file", str(tokens), "--health-needs-token") as server:
        address = f"ipv4:{server.address}"
        with ForwardClient(address, timeout_seconds=20, token="secret") as client:  # noqa: S106 (the test's own)
            assert len(client.predict(IMAGE).classes) == 1


def test_a_draining_server_gets_no_calls_and_none_fails(
    port: int, replicas: Sequence[RunningServer]
) -> None:
    """Its health says NOT_SERVING; that it still serves for four seconds is not needed."""
    address = "ipv4:" + ",".join(f"{host}:{port}" for host in HOSTS)
    with ForwardClient(address, timeout_seconds=60) as client:
        connect(client, replicas)
        leaving = replicas[0]
        leaving.process.send_signal(signal.SIGTERM)
        wait_until(lambda: any(each["event"] == "draining" for each in leaving.log()))
        wait_until(lambda: not calls_reach(client, leaving))
        assert not any(each["event"] == "refusing calls" for each in leaving.log())
        while leaving.process.poll() is None:
            client.predict(IMAGE)
            time.sleep(0.005)
        for _ in range(CALLS):
            client.predict(IMAGE)
    assert leaving.process.returncode == 0
