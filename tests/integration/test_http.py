"""The HTTP port: health, files, limits of requests and connections, metrics, CORS."""

import asyncio
import base64
import http.client
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection

from export.bundle import Bundle
from server.transport.http import bodies, server
from server.transport.http.requests import SECURITY_HEADERS
from tests.support.http import SERVICE, post, request
from tests.support.servers import (
    HeldServer,
    RunningServer,
    metric,
    run_server_until_it_ends,
    start_held_server,
    start_server,
    wait_until,
)

pytestmark = pytest.mark.one_transport

PREDICT = f"/{SERVICE.full_name}/Predict"
JSON = "content-type: application/json\r\n"


@pytest.fixture
def held(bundle: Bundle) -> Iterator[HeldServer]:
    with start_held_server(bundle) as started:
        started.runner.let_go.set()
        yield started


def connect(address: str) -> socket.socket:
    host, port = address.split(":")
    return socket.create_connection((host, int(port)), timeout=30)


def read_all(connection: socket.socket) -> bytes:
    """Return what comes until the server closes."""
    received = b""
    while part := connection.recv(65536):
        received += part
    return received


def tasks(held: HeldServer) -> int:
    """Return how many tasks the server has."""

    async def count() -> int:
        return len(asyncio.all_tasks())

    return asyncio.run_coroutine_threadsafe(count(), held.loop).result(10)


def test_health_tells_when_it_is_ready(served: RunningServer) -> None:
    assert request(served.http_address, "/livez").status == 200
    assert request(served.http_address, "/readyz").body == b"ready\n"
    assert request(served.http_address, "/readyz", method="HEAD").status == 200


def test_every_response_has_the_headers_of_security(served: RunningServer) -> None:
    for path in ("/", "/livez", "/nothing", PREDICT):
        answer = request(served.http_address, path)
        assert SECURITY_HEADERS.items() <= dict(answer.headers).items(), path
        assert answer.headers["cache-control"] == "no-cache"
        assert "access-control-allow-origin" not in answer.headers
        assert "server" not in answer.headers


def test_a_path_that_is_not_there_is_named_and_escaped(served: RunningServer) -> None:
    missing = request(served.http_address, "/%3Cscript%3E%00")
    assert (missing.status, missing.headers["content-type"]) == (404, "application/json")
    assert "nothing takes GET at '/<script>\\x00'" in missing.json()["error"]


@pytest.mark.parametrize("path", ["/../app.py", "/%2e%2e/app.py", "/..%2fapp.py", "//etc/passwd"])
def test_no_path_leads_out_of_the_page(path: str, served: RunningServer) -> None:
    assert request(served.http_address, path).status in (404, 307)


def test_a_websocket_is_refused(served: RunningServer) -> None:
    answer = request(
        served.http_address,
        "/",
        connection="Upgrade",
        upgrade="websocket",
        sec_websocket_version="13",
        sec_websocket_key="dGhlIHNhbXBsZSBub25jZQ==",
    )
    assert answer.status == 403


def test_requests_are_counted_by_route_and_status(served: RunningServer) -> None:
    def count(route: str, code: str) -> float:
        labels = {"http_route": route, "http_code": code}
        return metric(served, "forward_http_requests_total", **labels)

    before = count("/livez", "200")
    request(served.http_address, "/livez")
    post(served.http_address, "Predict", {})
    request(served.http_address, "/x" * 50)
    assert count("/livez", "200") == before + 1
    assert count(PREDICT, "400") >= 1
    assert count("/", "404") >= 1
    assert metric(served, "forward_http_request_seconds_count", http_route=PREDICT) >= 1


def test_labels_never_come_from_a_client(served: RunningServer) -> None:
    request(served.http_address, "/of-a-client", method="OF-A-CLIENT")
    post(served.http_address, "OfAClient", {})
    with urllib.request.urlopen(served.metrics_url, timeout=30) as response:  # noqa: S310 (the test's own server)
        found = response.read().lower()
    assert found
    assert b"of-a-client" not in found
    assert b"ofaclient" not in found


def test_a_body_over_the_limit_is_refused_before_it_is_read(served: RunningServer) -> None:
    with connect(served.http_address) as connection:
        head = f"POST {PREDICT} HTTP/1.1\r\nhost: x\r\n{JSON}content-length: 99999999999\r\n\r\n"
        connection.sendall(head.encode())
        received = read_all(connection)
    assert received.startswith(b"HTTP/1.1 413")
    assert b"expected a request body of at most" in received
    assert b"got 99999999999 bytes" in received


def test_a_chunked_body_over_the_limit_is_refused(held: HeldServer) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(200):
            yield bytes(100_000)

    before = tasks(held)
    answer = request(held.http_address, PREDICT, endless(), content_type="application/json")
    assert (answer.status, answer.json()["code"]) == (413, "resource_exhausted")
    wait_until(lambda: tasks(held) == before)


def test_a_response_before_the_body_leaves_nothing_behind(held: HeldServer) -> None:
    """The rest of the body fills the connection's queue, and nobody reads it any more."""
    before = tasks(held)
    head = f"POST {PREDICT} HTTP/1.1\r\nhost: x\r\ncontent-length: 3000000\r\n\r\n"
    answers = []
    with ExitStack() as stack:
        connections = [stack.enter_context(connect(held.http_address)) for _ in range(5)]
        for connection in connections:
            connection.sendall(head.encode() + bytes(2_000_000))
        answers = [read_all(connection) for connection in connections]
    assert all(answer.startswith(b"HTTP/1.1 415") for answer in answers)
    wait_until(lambda: tasks(held) == before)


def test_a_bomb_of_gzip_is_refused(served: RunningServer) -> None:
    bomb = subprocess.run(
        ["gzip", "--stdout"], input=bytes(50_000_000), capture_output=True, check=True
    ).stdout
    refused = post(served.http_address, "Predict", bomb, content_encoding="gzip")
    assert (refused.status, refused.json()["code"]) == (429, "resource_exhausted")


@pytest.mark.parametrize("sent", [b"", b'{"ima'], ids=["nothing", "a part"])
def test_a_slow_body_gets_an_error_and_holds_nothing(
    sent: bytes, held: HeldServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "SILENCE_SECONDS", 0.2)
    before = tasks(held)
    with connect(held.http_address) as connection:
        head = f"POST {PREDICT} HTTP/1.1\r\nhost: x\r\n{JSON}content-length: 50\r\n\r\n"
        connection.sendall(head.encode() + sent)
        received = read_all(connection)
    assert received.startswith(b"HTTP/1.1 408")
    assert f"got {len(sent)} bytes".encode() in received
    wait_until(lambda: tasks(held) == before)


def test_a_trickling_body_has_an_end(held: HeldServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "BODY_SECONDS", 0.5)
    with connect(held.http_address) as connection:
        head = f"POST {PREDICT} HTTP/1.1\r\nhost: x\r\n{JSON}content-length: 500\r\n\r\n"
        connection.sendall(head.encode())
        for _ in range(10):
            connection.sendall(b" ")
            time.sleep(0.1)
        assert read_all(connection).startswith(b"HTTP/1.1 408")


def test_a_client_that_leaves_in_its_body_holds_nothing(held: HeldServer) -> None:
    before = tasks(held)
    for _ in range(10):
        with connect(held.http_address) as connection:
            head = f"POST {PREDICT} HTTP/1.1\r\nhost: x\r\n{JSON}content-length: 500\r\n\r\n"
            connection.sendall(head.encode() + b"{")
    wait_until(lambda: tasks(held) == before)


def test_an_http2_client_that_leaves_before_its_response_holds_nothing(held: HeldServer) -> None:
    before = tasks(held)
    for _ in range(10):
        client = H2Connection(H2Configuration(client_side=True))
        client.initiate_connection()
        fields = {":method": "GET", ":path": "/v2", ":scheme": "http", ":authority": "x"}
        client.send_headers(1, list(fields.items()), end_stream=True)
        with connect(held.http_address) as connection:
            connection.sendall(client.data_to_send())
            assert connection.recv(9)  # the server has begun
    wait_until(lambda: tasks(held) == before)


@pytest.mark.parametrize("sent", [b"", b"GET / HT"], ids=["nothing", "a part"])
def test_a_silent_connection_is_closed(
    sent: bytes, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "IDLE_SECONDS", 0.3)
    with start_held_server(bundle) as held, connect(held.http_address) as connection:
        connection.sendall(sent)
        assert read_all(connection) == b""


@pytest.mark.parametrize(
    "sent",
    [
        b"\x00" * 100,
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\na: " + b"b" * 90_000 + b"\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nz\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(100),
    ],
    ids=["zeros", "no host", "long header", "negative length", "no chunk", "HTTP/2 of zeros"],
)
def test_malformed_requests_end_their_connection_alone(sent: bytes, held: HeldServer) -> None:
    before = tasks(held)
    with connect(held.http_address) as connection:
        connection.sendall(sent)
        received = read_all(connection)
    assert b" 500" not in received[:20]
    wait_until(lambda: tasks(held) == before)
    assert request(held.http_address, "/livez").status == 200


def test_a_connection_over_the_limit_is_closed_at_once() -> None:
    with start_server("--http-port", "0", "--max-connections", "3") as limited:
        with ExitStack() as stack:
            for _ in range(3):
                stack.enter_context(connect(limited.http_address))
            assert not is_answered(limited.http_address)
        wait_until(lambda: is_answered(limited.http_address))


def is_answered(address: str) -> bool:
    try:
        return request(address, "/livez").status == 200
    except (OSError, http.client.HTTPException):  # reset, or closed
        return False


def test_pages_of_other_origins_call_only_if_they_are_listed() -> None:
    origin, other = "https://a.example", "https://b.example"
    with start_server("--http-port", "0", "--http-origins", f"{origin},http://c.example") as opened:
        preflight = request(
            opened.http_address,
            PREDICT,
            method="OPTIONS",
            origin=origin,
            access_control_request_method="POST",
            access_control_request_headers="content-type,connect-protocol-version",
        )
        assert preflight.status == 200
        assert preflight.headers["access-control-allow-origin"] == origin
        allowed = post(opened.http_address, "GetModel", {}, origin=origin)
        assert allowed.headers["access-control-allow-origin"] == origin
        refused = post(opened.http_address, "GetModel", {}, origin=other)
        assert "access-control-allow-origin" not in refused.headers


def test_a_drain_ends_requests_and_connections(bundle: Bundle) -> None:
    with start_held_server(bundle) as held, ThreadPoolExecutor(1) as pool:
        black = base64.b64encode(bytes(784)).decode()
        message = {"images": {"dtype": "DATA_TYPE_UINT8", "shape": [28, 28], "data": black}}
        running = pool.submit(post, held.http_address, "Predict", message)
        assert held.runner.started.acquire(timeout=10)
        with connect(held.http_address) as idle:
            drained = held.drain(30)
            wait_until(lambda: request(held.http_address, "/readyz").status == 503)
            assert request(held.http_address, "/livez").headers["connection"] == "close"
            wait_until(lambda: post(held.http_address, "GetModel", {}).status == 503)
            held.runner.let_go.set()
            finished = running.result(10)
            drained.result(20)
            assert idle.recv(1) == b""
    assert finished.status == 200
    assert finished.json()["logits"]["shape"] == ["1", "10"]


def test_no_port_listens_for_http_when_it_is_off() -> None:
    with start_server("--http-port", "off") as without:
        assert without.ready["http_port"] is None
        assert without.ready["page"] is None


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--http-port", "none"), "--http-port"),
        (("--http-port", "65536"), "--http-port"),
        (("--http-port", "8001"), "--grpc-port and --http-port are both 8001"),
        (("--http-port", "8002"), "--http-port and --metrics-port are both 8002"),
        (("--http-origins", "example.com"), "expected origins such as https://example.com"),
        (("--http-origins", "https://example.com/"), "expected origins such as"),
        (("--http-port", "off", "--http-origins", "*"), "--http-origins needs --http-port"),
    ],
)
def test_a_wrong_setting_of_http_stops_the_start(arguments: tuple[str, ...], text: str) -> None:
    done = run_server_until_it_ends(*arguments)
    assert (done.returncode, text in done.stderr) == (2, True), done.stderr


def test_a_taken_port_is_named(served: RunningServer) -> None:
    port = str(served.ready["http_port"])
    ports = ("--grpc-port", "0", "--metrics-port", "0", "--http-port", port)
    done = run_server_until_it_ends(*ports)
    assert done.returncode == 1
    assert f"can't listen for HTTP on 127.0.0.1:{port}: Address already in use" in done.stderr
