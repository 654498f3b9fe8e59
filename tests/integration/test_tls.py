"""TLS on the gRPC port, by real certificates: who gets a connection, and with which of them."""

import socket
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from forward_client import CredentialsError, ForwardClient, ForwardError, Tls
from server.security.tls import TlsFiles, read_credentials
from tests.support.bundles import random_images
from tests.support.certificates import Authority, Pair
from tests.support.commands import run_client
from tests.support.servers import (
    RunningServer,
    metric,
    run_server_until_it_ends,
    scrape,
    start_server,
    wait_until,
)

IMAGE = random_images(1, (28, 28))
EXPIRY = "forward_tls_certificate_expiry_timestamp_seconds"


@pytest.fixture
def ours(tmp_path: Path) -> Authority:
    """The CA that both sides trust."""
    return Authority(tmp_path / "ours")


@pytest.fixture
def theirs(tmp_path: Path) -> Authority:
    """Another CA, which they do not."""
    return Authority(tmp_path / "theirs")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls") / "ours")


@pytest.fixture(scope="module")
def secured(authority: Authority, transport: str) -> Iterator[RunningServer]:
    """A server that speaks TLS and asks clients for no certificate."""
    with start_server(*authority.issue().arguments(), "--transport", transport) as server:
        yield server


@pytest.fixture(scope="module")
def mutual(authority: Authority, transport: str) -> Iterator[RunningServer]:
    """A server that wants a certificate of every client."""
    arguments = (*authority.issue().arguments(), "--transport", transport)
    with start_server(*arguments, "--tls-client-ca", str(authority.ca)) as server:
        yield server


def port_of(server: RunningServer) -> int:
    return int(server.ready["grpc_port"])


def named(server: RunningServer) -> str:
    return f"localhost:{port_of(server)}"


def expiry_on_the_wire(server: RunningServer, authority: Authority) -> float:
    """Return when the certificate that a new connection sees expires, by OpenSSL."""
    context = ssl.create_default_context(cafile=authority.ca)
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection(("127.0.0.1", port_of(server))) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        certificate = connection.getpeercert()
    assert certificate
    expiry = certificate["notAfter"]
    assert isinstance(expiry, str)
    return ssl.cert_time_to_seconds(expiry)


def expiry_of(pair: Pair) -> float:
    certificate = x509.load_pem_x509_certificates(pair.certificate.read_bytes())[0]
    return certificate.not_valid_after_utc.timestamp()


def handled(server: RunningServer) -> dict[str, float]:
    """Return how many calls ended by each code that there was."""
    return {
        dict(labels)["grpc_code"]: value
        for (name, labels), value in scrape(server).items()
        if name == "grpc_server_handled_total" and value
    }


def refusal(server: RunningServer, tls: Tls | None) -> str:
    with ForwardClient(named(server), tls=tls) as caller:
        with pytest.raises(ForwardError) as refused:
            caller.predict(IMAGE)
        assert refused.value.code == "UNAVAILABLE"
        return str(refused.value)


def test_tls_gives_the_responses_of_plaintext(
    secured: RunningServer, authority: Authority, client: ForwardClient
) -> None:
    with ForwardClient(named(secured), tls=authority.tls()) as caller:
        assert caller.health() == "SERVING"
        assert (caller.predict(IMAGE).logits == client.predict(IMAGE).logits).all()
        (streamed,) = caller.predict_stream([IMAGE])
    assert not isinstance(streamed, ForwardError)
    assert (streamed.logits == client.predict(IMAGE).logits).all()


def test_a_plain_client_of_a_tls_server_is_told_of_tls(secured: RunningServer) -> None:
    assert "name a CA (--tls-ca) if it speaks TLS" in refusal(secured, None)


def test_a_tls_client_of_a_plain_server_is_told_so(
    served: RunningServer, authority: Authority
) -> None:
    assert "it must speak TLS with a certificate of the CA" in refusal(served, authority.tls())


def test_a_client_refuses_wrong_certificates(
    secured: RunningServer, authority: Authority, theirs: Authority
) -> None:
    assert "CERTIFICATE_VERIFY_FAILED" in refusal(secured, theirs.tls())
    other = authority.tls(server_name="forward.example")
    assert "certificate of the CA for this name" in refusal(secured, other)


def test_a_client_may_expect_another_server_name(
    ours: Authority,
) -> None:
    pair = ours.issue("forward.example")
    with start_server(*pair.arguments()) as server:
        tls = ours.tls(server_name="forward.example")
        with ForwardClient(named(server), tls=tls) as caller:
            assert caller.health() == "SERVING"
        its_own = Tls(pair.certificate, server_name="forward.example")  # as the image's check does
        with ForwardClient(named(server), tls=its_own) as caller:
            assert caller.health() == "SERVING"


def test_a_client_with_a_certificate_is_served(mutual: RunningServer, authority: Authority) -> None:
    tls = authority.tls(authority.issue("caller"))
    with ForwardClient(named(mutual), tls=tls) as caller:
        assert caller.predict(IMAGE).logits.shape == (1, 10)


@pytest.mark.parametrize("which", ["none", "of another CA", "expired"])
def test_a_client_without_certificate_gets_no_connection(
    mutual: RunningServer, authority: Authority, theirs: Authority, which: str
) -> None:
    own = {
        "none": None,
        "of another CA": theirs.issue("stranger"),
        "expired": authority.issue("late", days=-1),
    }[which]
    before = handled(mutual)
    assert "take the client's own (--tls-cert) if it asks" in refusal(mutual, authority.tls(own))
    assert handled(mutual) == before, "no handler heard of it"


def test_client_certificates_are_optional_without_a_ca(
    secured: RunningServer, authority: Authority, theirs: Authority
) -> None:
    with ForwardClient(named(secured), tls=authority.tls(theirs.issue("caller"))) as caller:
        assert caller.health() == "SERVING"


def test_new_connections_get_a_renewed_certificate(
    ours: Authority,
) -> None:
    pair = ours.issue(days=7)
    first = expiry_of(pair)
    answers: list[int] = []
    with (
        start_server(*pair.arguments()) as server,
        ForwardClient(named(server), tls=ours.tls(), timeout_seconds=60) as old,
        calling_on(old, answers),
    ):
        assert expiry_on_the_wire(server, ours) == metric(server, EXPIRY) == first
        ours.renew(pair, days=14)
        wait_until(lambda: expiry_on_the_wire(server, ours) != first)
        assert expiry_on_the_wire(server, ours) == metric(server, EXPIRY) == expiry_of(pair)
        with ForwardClient(named(server), tls=ours.tls()) as new:
            assert new.health() == "SERVING"
        before = len(answers)
        wait_until(lambda: len(answers) > before + 10)
        assert set(handled(server)) == {"OK"}, "no call failed"
        assert "TLS files renewed" in [line["event"] for line in server.log()]


@contextmanager
def calling_on(caller: ForwardClient, answers: list[int]) -> Iterator[None]:
    """Call again and again from two threads, and note each answer; a failure is raised."""
    ended = threading.Event()

    def call() -> None:
        while not ended.is_set():
            answers.append(len(caller.predict(IMAGE).logits))

    with ThreadPoolExecutor(2) as pool:
        callers = [pool.submit(call) for _ in range(2)]
        try:
            yield
        finally:
            ended.set()
        for each in callers:
            each.result()


def test_mismatched_tls_files_keep_the_old_certificate(
    ours: Authority,
) -> None:
    pair = ours.issue(days=7)
    first = expiry_of(pair)
    key, other = pair.key.read_bytes(), ours.issue("other", days=14)

    def complaints(server: RunningServer) -> list[str]:
        return [line["reason"] for line in server.log() if "not renewed" in line["event"]]

    def connect_until_there_are(count: int, server: RunningServer) -> None:
        def there() -> bool:
            assert expiry_on_the_wire(server, ours) == first
            return len(complaints(server)) >= count

        wait_until(there)

    with start_server(*pair.arguments()) as server:
        pair.key.write_bytes(key[:100])  # as if somebody were still at it
        connect_until_there_are(1, server)
        pair.key.write_bytes(other.key.read_bytes())
        connect_until_there_are(2, server)
        pair.key.unlink()
        connect_until_there_are(3, server)
        half, foreign, gone = complaints(server)
        assert f"--tls-key {pair.key}: expected a PEM private key" in half
        assert f"--tls-key {pair.key}: is not the key of the certificate" in foreign
        assert f"--tls-key {pair.key}: can't be read" in gone
        pair.key.write_bytes(other.key.read_bytes())
        pair.certificate.write_bytes(other.certificate.read_bytes())
        wait_until(lambda: metric(server, EXPIRY) == expiry_of(other))
        assert key.decode() not in server.log_path.read_text()


@pytest.mark.parametrize(("days", "warned"), [(-1, True), (7, False)])
def test_an_expired_certificate_is_warned_of(ours: Authority, days: float, warned: bool) -> None:
    pair = ours.issue(days=days)
    with start_server(*pair.arguments()) as server:
        warnings = [line for line in server.log() if "not valid today" in line["event"]]
        assert bool(warnings) == warned
        assert all(line["file"] == str(pair.certificate) for line in warnings)
        assert metric(server, EXPIRY) == expiry_of(pair)


def test_a_world_readable_key_gives_a_warning(ours: Authority) -> None:
    pair = ours.issue()
    pair.key.chmod(0o644)
    with start_server(*pair.arguments()) as server:
        warnings = [line for line in server.log() if "readable by every user" in line["event"]]
    assert [(line["setting"], line["file"]) for line in warnings] == [("--tls-key", str(pair.key))]


def test_a_repr_does_not_contain_the_key(ours: Authority) -> None:
    pair = ours.issue()
    credentials = read_credentials(TlsFiles(pair.certificate, pair.key, None))
    assert credentials.key == pair.key.read_bytes()
    assert "PRIVATE KEY" not in repr(credentials)


def faulty(ours: Authority, fault: str) -> tuple[str, ...]:
    """Return arguments with something wrong."""
    pair = ours.issue()
    certificate, key = pair.arguments()[:2], pair.arguments()[2:]
    clients = ("--tls-client-ca", str(ours.ca))
    alone = {"certificate alone": certificate, "key alone": key, "client CA alone": clients}
    if fault in alone:
        return alone[fault]
    locked = load_pem_private_key(pair.key.read_bytes(), None).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")
    )
    other_kind = Ed25519PrivateKey.generate().private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    path, content = {
        "certificate is no PEM": (pair.certificate, b"\0certificate"),
        "key is no PEM": (pair.key, b"-----BEGIN PRIVATE KEY-----\n"),
        "key of another": (pair.key, ours.issue("other").key.read_bytes()),
        "key with a passphrase": (pair.key, locked),
        "key of another kind": (pair.key, other_kind),
        "client CA is no PEM": (ours.ca, b""),
        "no certificate file": (pair.certificate, None),
    }[fault]
    path.unlink() if content is None else path.write_bytes(content)
    return (*pair.arguments(), *clients)


@pytest.mark.one_transport
@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("no certificate file", "localhost-cert.pem: can't be read: No such file"),
        ("certificate is no PEM", "localhost-cert.pem: expected PEM certificates: "),
        ("key is no PEM", "localhost-key.pem: expected a PEM private key without a passphrase: "),
        ("key of another", "localhost-key.pem: is not the key of the certificate in --tls-cert"),
        ("key with a passphrase", "localhost-key.pem: expected a PEM private key without"),
        ("key of another kind", "localhost-key.pem: expected an RSA or elliptic-curve key"),
        ("client CA is no PEM", "ca.pem: expected PEM certificates: "),
        ("certificate alone", "--tls-cert needs --tls-key beside it"),
        ("key alone", "--tls-key needs --tls-cert beside it"),
        ("client CA alone", "--tls-client-ca needs --tls-cert and --tls-key beside it"),
    ],
)
def test_wrong_files_stop_the_start_and_are_named(ours: Authority, fault: str, reason: str) -> None:
    done = run_server_until_it_ends("--grpc-port", "0", "--metrics-port", "0", *faulty(ours, fault))
    assert done.returncode == (2 if "alone" in fault else 1)
    assert reason in done.stderr
    assert "Traceback" not in done.stderr


def test_the_command_uses_tls_by_flags_and_environment(
    mutual: RunningServer, authority: Authority
) -> None:
    own = authority.issue("caller")
    flags = {
        "--address": named(mutual),
        "--tls-ca": str(authority.ca),
        "--tls-cert": str(own.certificate),
        "--tls-key": str(own.key),
    }
    done = run_client("health", *(word for pair in flags.items() for word in pair))
    assert (done.returncode, done.stdout) == (0, "SERVING\n"), done.stderr
    variables = {
        f"FORWARD_CLIENT_{flag.strip('-').replace('-', '_').upper()}": value
        for flag, value in flags.items()
    }
    done = run_client("health", variables=variables)
    assert (done.returncode, done.stdout) == (0, "SERVING\n"), done.stderr
    variables["FORWARD_CLIENT_TLS_SERVER_NAME"] = "forward.example"
    done = run_client("health", variables=variables)
    assert done.returncode == 1
    assert "certificate of the CA for this name" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "environment", "said"),
    [
        (("--tls-ca", "none.pem"), {}, "none.pem: can't be read: No such file"),
        (("--tls-ca", "README.md"), {}, "README.md: expected certificates, PEM"),
        (("--tls-key", "x"), {}, "--tls-key needs --tls-ca beside it"),
        ((), {"FORWARD_CLIENT_TLS_CERTT": "x"}, "FORWARD_CLIENT_TLS_CERTT is not a setting"),
        (("--token-file", "none"), {}, "none: can't be read: No such file"),
        (("--token-file", "/dev/null"), {}, "/dev/null: has no token"),
    ],
)
def test_wrong_settings_of_the_client_are_named(
    arguments: tuple[str, ...], environment: dict[str, str], said: str
) -> None:
    done = run_client("health", *arguments, variables=environment)
    assert done.returncode
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_wrong_client_files_fail_before_any_call(ours: Authority, theirs: Authority) -> None:
    own, other = ours.issue("one"), theirs.issue("two")
    for tls in (
        Tls(ours.ca, own.certificate),
        Tls(ours.ca, own.certificate, other.key),
        Tls(own.key),
    ):
        with pytest.raises(CredentialsError):
            ForwardClient(tls=tls)
