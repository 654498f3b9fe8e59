"""TLS and tokens of the HTTP port: as on the gRPC port, from the same files."""

import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from connectrpc.code import Code
from connectrpc.errors import ConnectError
from pyqwest import HTTPVersion

from forward.v1 import forward_pb2 as pb
from tests.support.certificates import Authority, Pair
from tests.support.http import connect_caller, post, request
from tests.support.servers import RunningServer, start_server, wait_until

pytestmark = pytest.mark.one_transport

TOKEN = "a-token-of-the-tests"  # noqa: S105 (no secret)
MODEL = pb.GetModelRequest()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls") / "ours")


@pytest.fixture(scope="module")
def token_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokens") / "tokens"
    path.write_text(f"{TOKEN}\n")
    path.chmod(0o600)
    return path


@pytest.fixture(scope="module")
def guarded(token_file: Path) -> Iterator[RunningServer]:
    with start_server("--http-port", "0", "--token-file", str(token_file)) as started:
        yield started


def handshake(server: RunningServer, context: ssl.SSLContext) -> ssl.SSLSocket:
    """Return a connection to the HTTP port, by its number: no name is sent."""
    plain = socket.create_connection(("127.0.0.1", server.ready["http_port"]), timeout=30)
    return context.wrap_socket(plain, server_hostname="127.0.0.1")


def trusting(authority: Authority, own: Pair | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority.ca))
    context.check_hostname = False
    context.set_alpn_protocols(["h2", "http/1.1"])
    if own:
        context.load_cert_chain(own.certificate, own.key)
    return context


@pytest.mark.parametrize("version", [HTTPVersion.HTTP1, HTTPVersion.HTTP2], ids=["1.1", "2"])
def test_a_call_over_tls_is_answered(version: HTTPVersion, authority: Authority) -> None:
    pair = authority.issue()
    with start_server("--http-port", "0", *pair.arguments()) as secured:
        url = f"https://localhost:{secured.ready['http_port']}"
        assert secured.ready["page"] == f"{url}/"
        with connect_caller(url, version=version, ca=authority.ca.read_bytes()) as caller:
            assert caller.call("GetModel", MODEL).model.name == "mnist"
        with handshake(secured, trusting(authority)) as connection:
            assert connection.selected_alpn_protocol() == "h2"


def test_new_connections_get_a_renewed_certificate(authority: Authority) -> None:
    pair = authority.issue()
    with start_server("--http-port", "0", *pair.arguments()) as secured:

        def serial() -> object:
            with handshake(secured, trusting(authority)) as connection:
                return (connection.getpeercert() or {})["serialNumber"]

        before = serial()
        authority.renew(pair)
        wait_until(lambda: serial() != before)


def test_only_clients_with_a_certificate_may_connect(authority: Authority, tmp_path: Path) -> None:
    pair, own = authority.issue(), authority.issue()
    arguments = (*pair.arguments(), "--tls-client-ca", str(authority.ca))
    with start_server("--http-port", "0", *arguments) as secured:

        def answer(context: ssl.SSLContext) -> bytes:
            try:
                with handshake(secured, context) as connection:
                    connection.sendall(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n")
                    return connection.recv(100)
            except (ssl.SSLError, ConnectionError):
                return b""

        def http1(own: Pair | None) -> ssl.SSLContext:
            context = trusting(authority, own)
            context.set_alpn_protocols(["http/1.1"])
            return context

        assert answer(http1(own)).startswith(b"HTTP/1.1 200")
        assert answer(http1(None)) == b""
        strange = Authority(tmp_path / "theirs").issue()
        assert answer(http1(strange)) == b""


def test_the_api_needs_a_token_and_the_page_does_not(guarded: RunningServer) -> None:
    address = guarded.http_address
    refused = post(address, "GetModel", {})
    assert (refused.status, refused.json()["code"]) == (401, "unauthenticated")
    assert refused.headers["www-authenticate"] == "Bearer"
    assert post(address, "GetModel", {}, authorization=f"Bearer {TOKEN}").status == 200
    wrong = post(address, "GetModel", {}, authorization="Bearer of-somebody-else")
    assert wrong.status == 401
    assert "somebody" not in wrong.body.decode()
    for path in ("/", "/livez", "/readyz"):
        assert request(address, path).status != 401, path


def test_connectrpc_gets_the_status_of_a_missing_token(guarded: RunningServer) -> None:
    with connect_caller(f"http://{guarded.http_address}") as caller:
        with pytest.raises(ConnectError) as refused:
            caller.call("GetModel", MODEL)
        assert refused.value.code is Code.UNAUTHENTICATED
        token = {"authorization": f"Bearer {TOKEN}"}
        assert caller.call("GetModel", MODEL, token).model.name == "mnist"


def test_health_needs_a_token_if_that_was_set(token_file: Path) -> None:
    arguments = ("--token-file", str(token_file), "--health-needs-token")
    with start_server("--http-port", "0", *arguments) as closed:
        assert request(closed.http_address, "/readyz").status == 401
        token = f"Bearer {TOKEN}"
        assert request(closed.http_address, "/readyz", authorization=token).status == 200
