"""Three replicas behind HAProxy, by the files of deploy/proxy: none is missed by a call."""

import json
import re
import shutil
import signal
import subprocess
import urllib.request
from collections.abc import Iterator

import h2.config
import h2.connection
import h2.events
import pytest
from google.protobuf.wrappers_pb2 import StringValue

from bench.load.mixed import CALLERS, MixedLoad
from bench.servers.proxied import CONFIGURATION, HOST, Proxied, proxied
from tests.support.servers import wait_until

DRAIN_DELAY_SECONDS = 5  # a check finds it within one
PAUSE_SECONDS = 0.2  # of a caller: the machine has more to do
RESTART_SECONDS = 250
BYTES = re.compile(r"tcp-check send-binary ([0-9a-f]+)")
METHODS = {request.method for request in CALLERS}


@pytest.fixture(scope="module")
def behind() -> Iterator[Proxied]:
    if shutil.which("haproxy") is None:
        pytest.skip("needs haproxy, of Debian's package")
    options = ("--device", "cpu", "--log-format", "json")
    with proxied(*options, "--drain-delay", str(DRAIN_DELAY_SECONDS)) as served:
        yield served


def restart(behind: Proxied, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        behind.restart_command(*options),
        capture_output=True,
        text=True,
        timeout=RESTART_SECONDS,
        check=False,
    )


def status(behind: Proxied, replica: str) -> dict[str, float]:
    """Return the states of a replica, each 1 or 0, as HAProxy's metrics have them."""
    pattern = (
        rf'^haproxy_server_status{{proxy="forward_grpc",server="{replica}",state="(\w+)"}} (\d)'
    )
    return {state: int(value) for state, value in re.findall(pattern, behind.metrics(), re.M)}


def test_the_check_sends_the_health_check_of_grpc() -> None:
    """An HTTP/2 server gets HealthCheckRequest, of the whole server, and nothing else."""
    server = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
    sent = b"".join(map(bytes.fromhex, BYTES.findall(CONFIGURATION.read_text())))
    events = server.receive_data(sent)
    (request,) = (each for each in events if isinstance(each, h2.events.RequestReceived))
    (body,) = (each for each in events if isinstance(each, h2.events.DataReceived))
    assert dict(request.headers)[b":path"] == b"/grpc.health.v1.Health/Check"
    assert dict(request.headers)[b"content-type"] == b"application/grpc"
    message = StringValue().SerializeToString()
    assert body.data == bytes([0, *len(message).to_bytes(4, "big")]) + message
    assert isinstance(events[-1], h2.events.StreamEnded)


def test_a_rolling_restart_fails_no_call(behind: Proxied) -> None:
    with MixedLoad(behind.address, PAUSE_SECONDS) as load:
        done = restart(behind)
    assert done.returncode == 0, done.stderr
    assert load.outcome.failed == {}
    assert set(load.outcome.answered) == METHODS
    assert [replica.exits for replica in behind.replicas] == [[0]] * 3


def test_a_replica_that_drains_by_itself_fails_no_call(behind: Proxied) -> None:
    """Its health check says NOT_SERVING, and it serves on for --drain-delay."""
    replica = behind.replicas[0]
    ended = len(replica.exits)
    with MixedLoad(behind.address, PAUSE_SECONDS) as load:
        assert replica.process
        replica.process.send_signal(signal.SIGTERM)
        wait_until(lambda: status(behind, replica.name)["DOWN"] == 1, 60)
        wait_until(lambda: len(replica.exits) > ended, 60)
        wait_until(lambda: status(behind, replica.name)["UP"] == 1, 120)
    assert load.outcome.failed == {}
    assert set(load.outcome.answered) == METHODS


def test_a_command_that_fails_leaves_the_replica_in_service(behind: Proxied) -> None:
    command = [*behind.restart_command()[:-3], "sh", "-c", "exit 3"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "replica-1: sh -c exit 3 ended with status 3" in done.stderr
    wait_until(lambda: all(status(behind, each.name)["UP"] == 1 for each in behind.replicas))


def test_an_unknown_replica_is_named(behind: Proxied) -> None:
    done = restart(behind, "--replica", "replica-9")
    assert done.returncode == 1
    assert "no replica 'replica-9'; it has replica-1, replica-2, replica-3" in done.stderr


def test_http_goes_through_the_proxy_to_each_replica(behind: Proxied) -> None:
    url = f"http://{HOST}:{behind.ports['http']}/v2/models/mnist"
    for _ in behind.replicas:
        with urllib.request.urlopen(url, timeout=30) as response:
            assert json.load(response)["name"] == "mnist"
    counted = re.findall(
        r'^haproxy_server_sessions_total{proxy="forward_http",server="([\w-]+)"} (\d+)',
        behind.metrics(),
        re.M,
    )
    assert {name for name, count in counted if int(count)} == {r.name for r in behind.replicas}
