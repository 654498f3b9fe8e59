"""What the settings leave open is warned of."""

from pathlib import Path

import pytest
import structlog

from export.loopback import is_loopback
from export.settings import read_settings
from server.config import ServerSettings
from server.security.policy import open_security
from tests.support.certificates import Authority
from tests.support.servers import RunningServer

EVERYWHERE = "0.0.0.0"  # noqa: S104 (what is warned of)
TLS, TOKEN = "--tls-cert and --tls-key", "--token-file"


@pytest.mark.parametrize(
    ("host", "tls", "token", "says", "missing"),
    [
        ("127.0.0.1", False, False, "", []),
        (EVERYWHERE, False, False, "anybody may call", [TLS, TOKEN]),
        (EVERYWHERE, False, True, "tokens and images can be read on the way", [TLS]),
        (EVERYWHERE, True, False, "", []),
        (EVERYWHERE, True, True, "", []),
    ],
)
def test_an_open_port_without_tls_gives_a_warning(  # noqa: PLR0913, PLR0917 (each is a case)
    tmp_path: Path, host: str, tls: bool, token: bool, says: str, missing: list[str]
) -> None:
    arguments = ["--host", host]
    if tls:
        arguments += Authority(tmp_path / "ca").issue().arguments()
    if token:
        (tmp_path / "tokens").write_text("a-token")
        (tmp_path / "tokens").chmod(0o600)
        arguments += ["--token-file", str(tmp_path / "tokens")]
    with structlog.testing.capture_logs() as logged:
        security = open_security(read_settings(ServerSettings, arguments))
    assert (security.tls is not None, security.tokens is not None) == (tls, token)
    assert [line["missing"] for line in logged] == ([missing] if missing else [])
    assert all(says in line["event"] and line["host"] == host for line in logged)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("localhost", True),
        ("LocalHost.", True),
        ("api.localhost", True),
        ("::ffff:127.0.0.1", True),
        ("::ffff:192.0.2.1", False),
        (EVERYWHERE, False),
        ("::", False),
        ("192.0.2.1", False),
        ("localhost.example", False),
    ],
)
def test_an_address_is_loopback_or_not(host: str, loopback: bool) -> None:
    assert is_loopback(host) == loopback


def test_by_default_a_server_listens_on_loopback_only(
    served: RunningServer,
) -> None:
    assert served.ready["host"] == "127.0.0.1"
    # Calls of other tests may have failed.
    assert "warning" not in {line["level"] for line in served.log() if line["event"] != "call"}
