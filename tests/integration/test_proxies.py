"""Proxies: a real one on the loopback, and the rules by which it is taken or not."""

import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from forward_client import ForwardClient, ForwardError
from forward_client.address import parse_address
from forward_client.proxy import proxy_for
from tests.support.bundles import REPOSITORY
from tests.support.certificates import Authority
from tests.support.servers import RunningServer, start_server
from training.data import load
from training.errors import DatasetError

pytestmark = pytest.mark.one_transport

# A name of this machine that is no "localhost": a call that takes no proxy stays here, too. Nothing
# listens on port 1 of it, so that what is answered came by the proxy.
HOST = socket.gethostname() if socket.gethostname() != "localhost" else "host.invalid"
ELSEWHERE = f"{HOST}:1"


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@dataclass
class ConnectProxy:
    """A proxy that connects whoever asks to one port of this machine, or refuses."""

    port: int
    asked: list[str] = field(default_factory=list)
    authorizations: list[str] = field(default_factory=list)

    @property
    def place(self) -> str:
        return f"127.0.0.1:{self.port}"


@contextmanager
def connect_proxy(target_port: int, status: int = 200) -> Iterator[ConnectProxy]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        proxy = ConnectProxy(listener.getsockname()[1])

        def serve() -> None:
            while True:
                try:
                    caller, _ = listener.accept()
                except OSError:  # closed: the test is over
                    return
                threading.Thread(target=answer, args=(caller,), daemon=True).start()

        def answer(caller: socket.socket) -> None:
            with caller:
                head = b""
                while not head.endswith(b"\r\n\r\n"):
                    if not (more := caller.recv(1)):
                        return
                    head += more
                lines = head.decode().split("\r\n")
                proxy.asked.append(lines[0])
                proxy.authorizations += [x for x in lines if x.lower().startswith("proxy-auth")]
                caller.sendall(f"HTTP/1.1 {status} Said\r\n\r\n".encode())
                if status == 200:
                    tunnel(caller)

        def tunnel(caller: socket.socket) -> None:
            with socket.create_connection(("127.0.0.1", target_port)) as server:
                back = threading.Thread(target=copy, args=(server, caller), daemon=True)
                back.start()
                copy(caller, server)
                back.join(20)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield proxy
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(20)


def copy(source: socket.socket, sink: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:  # the other side has left
        return


@pytest.fixture
def dead_port() -> Iterator[int]:
    """A port that is bound, and that nobody listens on."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


def failure(address: str, timeout: float = 10) -> ForwardError:
    with (
        ForwardClient(address, timeout_seconds=timeout) as caller,
        pytest.raises(ForwardError) as failed,
    ):
        caller.health()
    return failed.value


@pytest.mark.parametrize("form", ["http://{}", "{}", "HTTP://{}/"])
@pytest.mark.parametrize(
    "variable",
    ["grpc_proxy", "https_proxy", "http_proxy", "GRPC_PROXY", "HTTPS_PROXY", "HTTP_PROXY"],
)
def test_calls_to_other_machines_use_the_proxy(
    served: RunningServer, monkeypatch: pytest.MonkeyPatch, variable: str, form: str
) -> None:
    with connect_proxy(served.ready["grpc_port"]) as proxy:
        monkeypatch.setenv(variable, form.format(proxy.place))
        with ForwardClient(ELSEWHERE, timeout_seconds=20) as caller:
            assert caller.health() == "SERVING"
    assert [line.split()[:2] for line in proxy.asked] == [["CONNECT", ELSEWHERE]]


def test_tls_goes_through_a_proxy_that_wants_a_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path / "ca")
    tls = authority.tls(server_name="localhost")
    with (
        start_server(*authority.issue().arguments()) as server,
        connect_proxy(server.ready["grpc_port"]) as proxy,
    ):
        monkeypatch.setenv("https_proxy", f"http://user:secret@{proxy.place}")
        with ForwardClient(ELSEWHERE, timeout_seconds=20, tls=tls) as caller:
            assert caller.health() == "SERVING"
    assert proxy.authorizations == ["Proxy-Authorization: Basic dXNlcjpzZWNyZXQ="]


@pytest.mark.parametrize("name", ["grpc_proxy", "https_proxy", "http_proxy"])
def test_a_call_to_this_machine_takes_no_proxy(
    served: RunningServer,
    dead_port: int,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    for variable in (name, name.upper()):
        monkeypatch.setenv(variable, f"http://127.0.0.1:{dead_port}")
    port = served.ready["grpc_port"]
    for host in ("localhost", "127.0.0.1", "LOCALHOST"):
        with ForwardClient(f"{host}:{port}", timeout_seconds=20) as caller:
            assert caller.health() == "SERVING"


def test_calls_to_other_loopbacks_take_no_proxy(
    dead_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connect_proxy(dead_port, status=403) as proxy:
        monkeypatch.setenv("http_proxy", f"http://{proxy.place}")
        for host in ("127.8.8.8", "[::1]", "[::ffff:127.0.0.1]", "a.localhost", "0.0.0.0", "[::]"):  # noqa: S104 (called, not bound)
            assert "proxy" not in str(failure(f"{host}:1", 0.5)), host
    assert proxy.asked == []


def test_the_command_takes_no_proxy_to_this_machine(served: RunningServer, dead_port: int) -> None:
    proxy = f"http://127.0.0.1:{dead_port}"
    done = subprocess.run(
        [sys.executable, "-m", "client", "health", "--address", served.address],
        cwd=REPOSITORY,
        env={**os.environ, "http_proxy": proxy, "https_proxy": proxy, "HTTPS_PROXY": proxy},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.returncode) == ("SERVING\n", 0), done.stderr


@pytest.mark.parametrize("variable", ["no_proxy", "NO_PROXY", "no_grpc_proxy", "NO_GRPC_PROXY"])
@pytest.mark.parametrize("entry", ["{host}", "other, {host} ", "*", "HOST"])
def test_a_host_that_no_proxy_lists_is_called_directly(
    monkeypatch: pytest.MonkeyPatch, dead_port: int, variable: str, entry: str
) -> None:
    listed = HOST.upper() if entry == "HOST" else entry.format(host=HOST)
    with connect_proxy(dead_port) as proxy:
        monkeypatch.setenv("http_proxy", f"http://{proxy.place}")
        monkeypatch.setenv(variable, listed)
        error = str(failure(ELSEWHERE, 2))
    assert proxy.asked == []
    assert "proxy" not in error


@pytest.mark.parametrize(
    ("host", "exceptions", "is_taken"),
    [
        ("api.example.com", "example.com", False),
        ("api.example.com", ".example.com", False),
        ("api.example.com", "*.example.com", False),
        ("example.org", "example.com,localhost", True),
        ("192.0.2.7", "192.0.2.0/24", False),
        ("192.0.2.7", "198.51.100.0/24", True),
        ("192.0.2.7", "192.0.2.7", False),
        ("[2001:db8::7]", "2001:db8::/32", False),
        ("[2001:db8::7]", "[2001:db8::7]", False),
        ("[2001:db8::7]", "", True),
        ("api.example.com", "", True),
    ],
)
def test_names_domains_and_networks_are_exceptions(
    host: str, exceptions: str, is_taken: bool
) -> None:
    for spelling in ("no_proxy", "NO_PROXY"):
        environment = {"HTTP_PROXY": "http://192.0.2.1:3128", spelling: exceptions}
        proxy = proxy_for(parse_address(f"{host}:8001"), environment)
        assert (proxy is not None) == is_taken


def test_the_first_proxy_variable_counts() -> None:
    def chosen(**environment: str) -> str:
        proxy = proxy_for(parse_address("example.com:8001"), environment)
        return proxy.redacted.removeprefix("http://") if proxy else ""

    assert chosen(http_proxy="a:1", https_proxy="b:2", grpc_proxy="c:3") == "c:3"
    assert chosen(HTTP_PROXY="a:1", HTTPS_PROXY="b:2") == "b:2"
    assert chosen(HTTP_PROXY="a:1", http_proxy="b:2") == "b:2"
    assert chosen(http_proxy="a:1", grpc_proxy="") == ""
    assert chosen(HTTP_PROXY="a:1", REQUEST_METHOD="GET") == "", "a header of a CGI's caller"
    assert chosen(http_proxy="a:1", no_proxy="example.com", no_grpc_proxy="other") == "a:1"


@pytest.mark.parametrize("status", [403, 502])
def test_a_proxy_that_refuses_is_named_without_its_password(
    monkeypatch: pytest.MonkeyPatch, dead_port: int, status: int
) -> None:
    with connect_proxy(dead_port, status) as proxy:
        monkeypatch.setenv("https_proxy", f"http://user:secret@{proxy.place}")
        error = failure(ELSEWHERE)
    assert error.code == "UNAVAILABLE"
    expected = (
        f"no server answers at {ELSEWHERE} through the proxy http://{proxy.place} (https_proxy)"
    )
    assert expected in str(error)
    assert "add the host to no_proxy to call it directly" in str(error)
    assert str(status) in str(error)
    assert "secret" not in str(error)


def test_a_proxy_that_is_not_there_is_named(
    monkeypatch: pytest.MonkeyPatch, dead_port: int
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{dead_port}")
    error = str(failure(ELSEWHERE))
    assert f"through the proxy http://127.0.0.1:{dead_port} (HTTPS_PROXY)" in error


def test_a_proxy_that_never_answers_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        place = f"127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setenv("http_proxy", place)
        error = str(failure(ELSEWHERE, 0.5))
    assert re.match("DEADLINE_EXCEEDED: no response from .* through the proxy", error)
    assert f"http://{place} (http_proxy) within 0.5 s" in error


@pytest.mark.parametrize(
    "url", ["socks5://user:secret@127.0.0.1:9", "https://127.0.0.1:9", "http://"]
)
def test_an_unusable_proxy_is_named_in_the_error(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], url: str
) -> None:
    monkeypatch.setenv("https_proxy", url)
    error = str(failure(ELSEWHERE, 2))
    if not error.startswith("DEADLINE"):
        assert "(https_proxy) was not used: expected http://host:port" in error
    assert "secret" not in error + capfd.readouterr().err


def test_a_mirror_on_this_machine_takes_no_proxy(
    tmp_path: Path, dead_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mirror has no such files; what counts is who was asked."""
    asked: list[str] = []

    class Mirror(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_format_and_arguments: object) -> None:
            """Say nothing."""

    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{dead_port}")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Mirror)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    address: Any = server.server_address
    try:
        with pytest.raises(DatasetError):
            load("mnist", tmp_path, f"http://localhost:{address[1]}/files")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert set(asked) == {"/files/train-images-idx3-ubyte.gz"}
