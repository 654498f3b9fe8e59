"""Where a server listens, and how a client is told where it is."""

import os
import signal
import socket
import ssl
import stat
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import hypothesis
import pytest
from hypothesis import strategies as st

from export.settings import read_settings
from forward_client import ForwardClient
from server.addresses import Address, addresses_of, bind_all
from server.config import ServerSettings
from server.errors import StartError
from tests.support.bundles import REPOSITORY
from tests.support.certificates import Authority
from tests.support.servers import RunningServer, run_server_until_it_ends, start_server, wait_until

IPV4, IPV6 = "127.0.0.1", "::1"


def has_ipv6(ip: str = IPV6) -> bool:
    try:
        with socket.socket(socket.AF_INET6) as tried:  # and does not listen
            tried.bind((ip, 0))
    except OSError:
        return False
    return True


LOOPBACKS = [IPV4, IPV6] if has_ipv6() else [IPV4]


def at(ip: str, port: int) -> str:
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"


@contextmanager
def taken_port(ip: str) -> Iterator[int]:
    """Have another program's socket listen on a port of an address."""
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    with socket.create_server((ip, 0), family=family) as other:
        yield other.getsockname()[1]


def health(address: str) -> str:
    with ForwardClient(address, timeout_seconds=20) as caller:
        return caller.health()


def test_localhost_serves_calls_and_metrics_on_every_loopback() -> None:
    with start_server("--host", "localhost") as server:
        for ip in LOOPBACKS:
            assert health(at(ip, server.ready["grpc_port"])) == "SERVING"
            url = f"http://{at(ip, server.ready['metrics_port'])}/metrics"
            with urllib.request.urlopen(url, timeout=20) as response:
                assert response.status == 200
        assert health(f"localhost:{server.ready['grpc_port']}") == "SERVING"


@pytest.mark.parametrize("flag", ["--grpc-port", "--metrics-port"])
@pytest.mark.parametrize("ip", LOOPBACKS)
def test_an_address_that_is_taken_is_named(ip: str, flag: str) -> None:
    ports = {"--grpc-port": "0", "--metrics-port": "0"}
    with taken_port(ip) as port:
        ports[flag] = str(port)
        flags = [word for item in ports.items() for word in item]
        done = run_server_until_it_ends("--host", "localhost", *flags)
    assert done.returncode == 1
    assert f"on {at(ip, port)}: Address already in use; choose another" in done.stderr
    assert flag in done.stderr
    assert '"ready"' not in done.stderr


# Bound and never listened on: nobody reaches it from elsewhere.
@pytest.mark.parametrize("host", ["0.0.0.0", "::", "0"])  # noqa: S104 (what the test is of)
def test_a_wildcard_is_every_interface_of_both_kinds(host: str) -> None:
    bound = bind_all(host, 0, "gRPC", "")
    # A machine whose interfaces have IPv6 switched off may still have its wildcard.
    expected = {"0.0.0.0", "::"} if has_ipv6("::") else {"0.0.0.0"}  # noqa: S104
    found = {address.ip for address, _ in bound}
    assert len({each.getsockname()[1] for _, each in bound}) == 1
    for _, each in bound:
        each.close()
    assert found == expected
    for ip in LOOPBACKS:
        with taken_port(ip) as port, pytest.raises(StartError, match=f":{port}: Address already"):
            bind_all(host, port, "gRPC", "")


def test_a_refused_address_leaves_the_others_free() -> None:
    with taken_port(LOOPBACKS[-1]) as port:
        with pytest.raises(StartError):
            bind_all("localhost", port, "gRPC", "")
        if has_ipv6():
            socket.create_server((IPV4, port)).close()


def test_a_name_stands_for_all_its_addresses() -> None:
    found = {address.ip for address in addresses_of(socket.gethostname())}
    known = socket.getaddrinfo(socket.gethostname(), None, type=socket.SOCK_STREAM)
    assert found == {full[0] for *_, full in known if has_ipv6() or ":" not in str(full[0])}
    assert addresses_of("::ffff:127.0.0.1") == [Address(socket.AF_INET6, "::ffff:127.0.0.1")]


def test_brackets_around_a_host_are_understood() -> None:
    if not has_ipv6():
        done = run_server_until_it_ends("--host", "[::1]", "--grpc-port", "0")
        assert "can't listen for gRPC on [::1]:0: " in done.stderr
        return
    with start_server("--host", "[::1]", "--metrics-host", IPV4) as server:
        assert health(f"[::1]:{server.ready['grpc_port']}") == "SERVING"
        with urllib.request.urlopen(server.metrics_url, timeout=20) as response:  # noqa: S310 (the test's own server)
            assert response.status == 200


def test_metrics_listen_where_their_own_setting_says() -> None:
    with start_server("--metrics-host", "127.0.0.2") as server:
        socket.create_connection(("127.0.0.2", server.ready["metrics_port"])).close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((IPV4, server.ready["metrics_port"]))
        assert health(server.address) == "SERVING"


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--host", ""], "expected a name or an IP address of this machine, got ''"),
        (["--host", "127.0.0.1:8001"], "without a port, which is a setting of its own"),
        (["--host", "[::1]:8001"], "without a port"),
        (["--host", "http://localhost"], "or unix:/path/of/a/socket"),
        (["--host", "/run/forward.sock"], "or unix:/path/of/a/socket"),
        (["--host", "a b"], "expected a name or an IP address"),
        (["--host", "*"], "expected a name or an IP address"),
        (["--host", "unix:"], "expected unix:/path/of/a/socket"),
        (["--host", "unix://run/x"], "unix:///path/of/a/socket"),
        (["--host", "unix:/" + "x" * 107], "expected a path of at most 107 bytes"),
        (["--metrics-host", "unix:/run/x"], "Prometheus scrapes no sockets"),
        (["--grpc-port", "65536"], "--grpc-port"),
        (["--metrics-port", "-1"], "--metrics-port"),
    ],
)
def test_a_wrong_place_to_listen_is_named(
    flags: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        read_settings(ServerSettings, flags)
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "host", "of_metrics"),
    [
        ("[fe80::1%eth0]", "fe80::1%eth0", "fe80::1%eth0"),
        ("::1", "::1", "::1"),
        ("localhost", "localhost", "localhost"),
        ("unix:///run/x", "unix:/run/x", IPV4),
        ("unix:x", "unix:x", IPV4),
    ],
)
def test_a_host_has_one_plain_form(given: str, host: str, of_metrics: str) -> None:
    settings = read_settings(ServerSettings, ["--host", given])
    assert (settings.host, settings.host_of_metrics) == (host, of_metrics)


def test_one_port_on_two_hosts_is_no_conflict() -> None:
    same = ["--grpc-port", "8001", "--metrics-port", "8001"]
    for hosts in (["--metrics-host", "127.0.0.2"], ["--host", "unix:/run/x"]):
        assert read_settings(ServerSettings, [*same, *hosts]).metrics_port == 8001


def on_socket(path: Path, *flags: str) -> tuple[str, ...]:
    return ("--host", f"unix:{path}", *flags)


@pytest.fixture
def path() -> Iterator[Path]:
    """A path that is short enough for a socket, with signs that URLs would escape."""
    folder = Path("/tmp") / f"fwd{os.getpid()}"  # noqa: S108 (pytest's own may be too long)
    folder.mkdir(mode=0o700)
    yield folder / "a b%41.sock"
    for left in folder.iterdir():
        left.unlink()
    folder.rmdir()


def test_a_unix_socket_is_served_and_called(path: Path) -> None:
    with start_server(*on_socket(path)) as server:
        assert server.ready["host"] == f"unix:{path}"
        assert health(f"unix:{path}") == health(f"unix://{path}") == "SERVING"
        command = [sys.executable, "-W", "error", "-m", "client", "health"]
        done = subprocess.run(
            [*command, "--address", f"unix:{path}"],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.stdout, done.returncode) == ("SERVING\n", 0)
        with urllib.request.urlopen(server.metrics_url, timeout=20) as response:  # noqa: S310 (the test's own server)
            assert response.status == 200
        umask = os.umask(0)
        os.umask(umask)
        assert stat.S_IMODE(path.stat().st_mode) == 0o777 & ~umask
        assert server.stop() == 0
    assert not path.exists()


def test_a_unix_socket_speaks_tls(path: Path, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    with (
        start_server(*on_socket(path, *authority.issue().arguments())),
        ForwardClient(f"unix:{path}", tls=authority.tls()) as caller,
    ):
        assert caller.health() == "SERVING"


def test_a_killed_servers_socket_is_replaced(path: Path) -> None:
    with start_server(*on_socket(path)) as server:
        server.stop(signal.SIGKILL)
    assert path.is_socket()
    with start_server(*on_socket(path)):
        assert health(f"unix:{path}") == "SERVING"


def test_a_foreign_socket_or_file_is_kept(path: Path) -> None:
    with start_server(*on_socket(path)):
        done = run_server_until_it_ends(*on_socket(path, "--metrics-port", "0"))
        assert done.returncode == 1
        assert f"unix:{path}: another process listens there" in done.stderr
        assert health(f"unix:{path}") == "SERVING"
    path.unlink(missing_ok=True)
    path.write_text("kept")
    done = run_server_until_it_ends(*on_socket(path, "--metrics-port", "0"))
    assert done.returncode == 1
    assert "there is a file that is no socket" in done.stderr
    assert path.read_text() == "kept"


def test_a_socket_without_its_folder_is_refused(path: Path) -> None:
    nowhere = path.parent / "none" / "x.sock"
    done = run_server_until_it_ends(*on_socket(nowhere, "--metrics-port", "0"))
    assert done.returncode == 1
    assert f"unix:{nowhere}: its folder is not there" in done.stderr


def test_renewed_certificates_reach_every_address(tmp_path: Path) -> None:
    ours, theirs = Authority(tmp_path / "ours"), Authority(tmp_path / "theirs")
    pair = ours.issue()

    def trusted(authority: Authority, port: int) -> list[bool]:
        return [is_trusted(authority, at(ip, port)) for ip in LOOPBACKS]

    with start_server("--host", "localhost", *pair.arguments()) as server:
        port = server.ready["grpc_port"]
        assert trusted(ours, port) == [True] * len(LOOPBACKS)
        other = theirs.issue()
        pair.key.write_bytes(other.key.read_bytes())
        pair.certificate.write_bytes(other.certificate.read_bytes())
        wait_until(lambda: all(trusted(theirs, port)))
        assert not any(trusted(ours, port))


def is_trusted(authority: Authority, address: str) -> bool:
    host, _, port = address.rpartition(":")
    context = ssl.create_default_context(cafile=authority.ca)
    context.set_alpn_protocols(["h2"])
    with socket.create_connection((host.strip("[]"), int(port))) as plain:
        try:
            context.wrap_socket(plain, server_hostname="localhost").close()
        except ssl.SSLCertVerificationError:
            return False
    return True


BRACKETS = "with brackets around an IPv6 address, as in [::1]:8001"
WRONG = [
    ("localhost", "expected host:port, got 'localhost'"),
    ("", "expected host:port, got ''"),
    (":8001", "expected host:port"),
    ("localhost:", "with a port from 1 to 65535"),
    ("localhost:0", "with a port from 1 to 65535"),
    ("localhost:-1", "with a port from 1 to 65535"),
    ("localhost:65536", "with a port from 1 to 65535, got 'localhost:65536'"),
    ("localhost:73537", "with a port from 1 to 65535"),  # 8001 if it wraps
    ("localhost:99999999999999999999", "with a port from 1 to 65535"),
    ("localhost:\N{ARABIC-INDIC DIGIT ONE}", "with a port from 1 to 65535"),
    ("localhost:grpc", "with a port from 1 to 65535"),
    ("::1:8001", BRACKETS),
    ("::1", BRACKETS),
    ("[::1]", BRACKETS),
    ("[127.0.0.1]:8001", "with an IPv6 address in the brackets"),
    ("http://localhost:8001", "without 'http://'"),
    ("local host:8001", "expected host:port"),
    ("user@localhost:8001", "expected host:port"),
    ("localhost/x:8001", "expected host:port"),
    ("dns:///localhost:70000", "with a port from 1 to 65535"),
    ("ipv4:127.0.0.1:8001,127.0.0.1:70000", "with a port from 1 to 65535"),
    ("unix:", "expected unix:/path/of/a/socket"),
    ("unix://run/x", "expected unix:/path/of/a/socket"),
]


@pytest.mark.parametrize(("address", "said"), WRONG)
def test_a_wrong_address_is_refused_with_a_reason(address: str, said: str) -> None:
    with pytest.raises(ValueError, match=r"^expected") as refused, ForwardClient(address):
        pass
    assert said in str(refused.value)


def test_the_command_refuses_a_wrong_address() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "client", "health", "--address", "localhost:73537"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "argument --address: expected host:port, with a port from 1 to 65535" in done.stderr


@hypothesis.given(
    host=st.sampled_from(["localhost", "127.0.0.1", "[::1]", "a-b.example", "dns"]),
    port=st.integers(-(2**33), 2**33),
)
def test_ports_are_from_1_to_65535(host: str, port: int) -> None:
    if 1 <= port <= 65535:
        ForwardClient(f"{host}:{port}").close()
    else:
        with pytest.raises(ValueError, match="expected"):
            ForwardClient(f"{host}:{port}")


@pytest.mark.parametrize("form", ["{}", "dns:///{}", "dns:{}", "ipv4:{}", "ipv4:{0},{0}"])
def test_targets_of_grpc_are_called(served: RunningServer, form: str) -> None:
    assert health(form.format(served.address)) == "SERVING"


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), 1e9])
def test_a_timeout_that_is_none_is_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match="expected a timeout above 0 and at most 86400 seconds"):
        ForwardClient("localhost:8001", timeout_seconds=seconds)
