"""The connections that the metrics count are those that the clients had, by why they ended."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import h2.errors
import h2.events
import pytest
from prometheus_client import CollectorRegistry
from starlette.types import Receive, Scope, Send

from bench.load.floods import FLOODS, http2_frame, opened_connection, send_flood
from export.bundle import Bundle
from forward.v1 import forward_pb2 as pb
from forward.v1.forward_pb2_grpc import ForwardServiceStub
from forward_client import ForwardClient
from forward_client.messages import tensor_of
from server.transport.http import server as http_server
from server.transport.http.server import HttpServer
from tests.support.certificates import Authority
from tests.support.faults import ALONE, ONE, RawClient, connect, grpc_port
from tests.support.http import request
from tests.support.servers import (
    RunningServer,
    Series,
    scrape,
    start_held_server,
    start_server,
    wait_until,
)

pytestmark = pytest.mark.one_transport

PREFIX = "forward_connections"


@pytest.fixture(autouse=True)
def _native() -> None:
    pytest.importorskip("forward_native", reason="the native transport is not installed")


def counts(series: Series, transport: str) -> dict[str, float]:
    """Return the counts of a transport that are not 0, by "closed client" and the like."""
    found = {}
    for (name, labels), value in series.items():
        told = dict(labels)
        if name.startswith(PREFIX) and told["transport"] == transport and value:
            kind = name.removeprefix(PREFIX).strip("_").removesuffix("_total") or "open"
            found[f"{kind} {told.get('reason', '')}".strip()] = value
    return found


def become(server: RunningServer, transport: str, expected: dict[str, int]) -> None:
    """Wait until the counts are these; fail with what they are."""
    with contextlib.suppress(AssertionError):
        wait_until(lambda: counts(scrape(server), transport) == expected)
    assert counts(scrape(server), transport) == expected


def served_client(port: int) -> RawClient:
    """Return a connection that has got an answer."""
    client = RawClient(port)
    client.events_until(h2.events.SettingsAcknowledged)
    return client


def read_to_the_end(connected: socket.socket) -> bytes:
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while data := connected.recv(65536):
            received += data
    return received


def test_connections_of_grpc_are_counted_by_their_ends() -> None:
    with (
        start_server("--transport", "native", "--max-connections", "3") as server,
        ExitStack() as stack,
    ):
        port = grpc_port(server)
        become(server, "grpc", {})
        first, second, _ = (stack.enter_context(served_client(port)) for _ in range(3))
        become(server, "grpc", {"open": 3, "opened": 3})
        for _ in range(4):
            with connect(port) as refused:
                assert read_to_the_end(refused) == b""
        expected = {"open": 3, "opened": 3, "refused limit": 4}
        become(server, "grpc", expected)
        first.socket.close()
        second.socket.close()
        become(server, "grpc", expected := {**expected, "open": 1, "closed client": 2})
        with served_client(port) as leaving:
            leaving.http.close_connection(h2.errors.ErrorCodes.INTERNAL_ERROR)
            leaving.flush()
            read_to_the_end(leaving.socket)
        become(server, "grpc", expected := {**expected, "opened": 4, "closed client": 3})
        for sent in (b"GET / HTTP/1.1\r\n\r\n", b""):
            with connect(port) as wrong:
                wrong.sendall(sent)
                wrong.shutdown(socket.SHUT_WR)
                read_to_the_end(wrong)
        become(server, "grpc", expected := {**expected, "refused http2": 2})
        send_flood(port, FLOODS["pings"](), 60_000)
        become(server, "grpc", expected := {**expected, "opened": 5, "closed flood": 1})
        send_flood(port, FLOODS["continuations"](), 60_000)
        become(server, "grpc", expected := {**expected, "opened": 6, "closed flood": 2})
        with opened_connection(port) as wrong:
            wrong.sendall(http2_frame(0, b"data of no call", stream=0))
            read_to_the_end(wrong)
        become(server, "grpc", {**expected, "opened": 7, "closed error": 1})


def test_old_and_silent_connections_are_counted_as_such() -> None:
    arguments = ("--max-connection-age", "3", "--drain-timeout", "10", "--keepalive-time", "1")
    with start_server("--transport", "native", *arguments) as server:
        with served_client(grpc_port(server)) as silent:
            become(server, "grpc", {"open": 1, "opened": 1})
            read_to_the_end(silent.socket)  # it answers no ping
        become(server, "grpc", {"opened": 1, "closed keepalive": 1})
        with grpc.insecure_channel(server.address, ALONE) as channel:
            predict = ForwardServiceStub(channel).Predict
            predict(pb.PredictRequest(images=tensor_of(ONE)), timeout=20)
            become(server, "grpc", {"opened": 2, "closed keepalive": 1, "closed age": 1})


def test_refused_handshakes_are_counted(tmp_path: Path) -> None:
    ours, theirs = Authority(tmp_path / "ours"), Authority(tmp_path / "theirs")
    own = ours.issue()
    with start_server("--transport", "native", *own.arguments(), "--http-port", "0") as server:
        with ForwardClient(f"localhost:{grpc_port(server)}", tls=ours.tls()) as client:
            client.predict(ONE)
            become(server, "grpc", {"open": 1, "opened": 1})
        become(server, "grpc", {"opened": 1, "closed client": 1})
        distrusting = ssl.create_default_context(cafile=str(theirs.ca))
        for transport, port in (("grpc", grpc_port(server)), ("http", server.ready["http_port"])):
            with connect(port) as plain:
                plain.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
                read_to_the_end(plain)
            with connect(port) as refusing, pytest.raises(ssl.SSLCertVerificationError):
                distrusting.wrap_socket(refusing, server_hostname="localhost")
            known = {"opened": 1, "closed client": 1} if transport == "grpc" else {}
            become(server, transport, {**known, "refused tls": 2})


def test_connections_of_http_are_counted_by_their_ends() -> None:
    with start_server("--http-port", "0", "--max-connections", "2") as server, ExitStack() as stack:
        port = server.ready["http_port"]
        become(server, "http", {})
        held = [stack.enter_context(connect(port)) for _ in range(2)]
        become(server, "http", {"open": 2, "opened": 2})
        with connect(port) as refused:
            assert read_to_the_end(refused) == b""
        become(server, "http", expected := {"open": 2, "opened": 2, "refused limit": 1})
        held[0].close()
        become(server, "http", expected := {**expected, "open": 1, "closed client": 1})
        assert request(server.http_address, "/livez").status == 200
        become(server, "http", expected := {**expected, "opened": 3, "closed client": 2})
        with connect(port) as asking:  # hypercorn itself leaves it open, for ever
            asking.sendall(GET.replace(b"\r\n\r\n", WEBSOCKET) % b"/")
            assert read_to_the_end(asking).startswith(b"HTTP/1.1 400 ")
        become(server, "http", {**expected, "opened": 4, "closed client": 3})


async def answer_slowly(scope: Scope, _receive: Receive, send: Send) -> None:
    await asyncio.sleep({"/": 0, "/soon": 0.3, "/late": 30}[scope["path"]])
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"answered"})


# Its settings are no base64: hypercorn fails after it has agreed to the upgrade.
UPGRADE_TO_HTTP2 = (
    b"GET / HTTP/1.1\r\nhost: test\r\nconnection: upgrade, http2-settings\r\n"
    b"upgrade: h2c\r\nhttp2-settings: AAA\r\n\r\n"
)
WEBSOCKET = b"\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
GET = b"GET %s HTTP/1.1\r\nhost: test\r\n\r\n"


def test_connections_that_http_ends_itself_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "IDLE_SECONDS", 0.5)

    async def run() -> list[Mapping[str, int]]:
        server = HttpServer(answer_slowly, 20)
        port = await server.listen("127.0.0.1", 0)
        seen = []
        for sent in (b"", GET % b"/", UPGRADE_TO_HTTP2):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(sent)
            await asyncio.wait_for(reader.read(), 20)  # to its end
            writer.close()
            await asyncio.to_thread(wait_until, lambda: not server.connections.open)
            seen.append(server.connections.counts().closed)
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(4)]
        held[0][1].write(GET % b"/")
        await held[0][0].readuntil(b"answered")
        held[1][1].write(GET % b"/soon")
        held[2][1].write(GET % b"/late")
        await asyncio.to_thread(wait_until, lambda: server.connections.open == 4)
        await server.stop(1)
        for _, writer in held:
            writer.close()
        assert server.connections.open == 0
        return [*seen, server.connections.counts().closed]

    none = dict.fromkeys(("client", "keepalive", "drain", "error"), 0)
    assert asyncio.run(run()) == [
        {**none, "keepalive": 1},
        {**none, "keepalive": 2},
        {**none, "keepalive": 2, "error": 1},
        {**none, "keepalive": 2, "error": 1, "drain": 4},
    ]


def registry_series(registry: CollectorRegistry) -> Series:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in registry.collect()
        for sample in family.samples
    }


def test_a_drain_closes_what_is_open_and_counts_it(bundle: Bundle) -> None:
    with start_held_server(bundle) as server, ExitStack() as stack:
        held: Any = server
        clients = [
            stack.enter_context(served_client(int(server.address.split(":")[1]))) for _ in range(3)
        ]
        registry = server.metrics.registry
        assert counts(registry_series(registry), "grpc") == {"open": 3, "opened": 3}
        clients[0].socket.close()
        wait_until(lambda: counts(registry_series(registry), "grpc")["open"] == 2)
        held.drain(10).result(30)
        for client in clients[1:]:
            read_to_the_end(client.socket)
        expected = {"opened": 3, "closed client": 1, "closed drain": 2}
        assert counts(registry_series(registry), "grpc") == expected
