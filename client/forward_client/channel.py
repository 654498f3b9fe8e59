"""The channel to a server: plain, or TLS with the certificates of both sides."""

import json
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import grpc

from forward_client.address import Address
from forward_client.errors import CredentialsError
from forward_client.proxy import Proxy, channel_options

# The server bounds its responses; a second limit here would only hide them.
OPTIONS = (("grpc.max_receive_message_length", -1),)
# Calls go to each of the servers in turn, but to none whose health is NOT_SERVING, as in a drain.
ROUND_ROBIN: dict[str, object] = {"loadBalancingConfig": [{"round_robin": {}}]}
HEALTH_CHECKED = {**ROUND_ROBIN, "healthCheckConfig": {"serviceName": ""}}


@dataclass(frozen=True)
class Tls:
    """TLS settings; all files are PEM.

    Attributes:
        ca: trusted CA certificates, or the server's own certificate.
        certificate: the client's certificate with its chain, for a server that requires one.
        key: the private key of the client's certificate.
        server_name: the name that the server's certificate must have, if it is not
            the host of the address, or `localhost` for a socket.
    """

    ca: Path
    certificate: Path | None = None
    key: Path | None = None
    server_name: str = ""


def open_channel(
    address: Address, tls: Tls | None, proxy: Proxy | None, *, checks_health: bool = True
) -> grpc.Channel:
    """Return a channel to a server, directly or through a proxy; it connects on first use.

    Args:
        address: of the server, or of several.
        tls: TLS settings; None for a plain connection.
        proxy: on the way, or None.
        checks_health: whether gRPC watches the health of several servers. It sends no token,
            which a server may want for health as well.

    Raises:
        CredentialsError: a file is missing or wrong.
    """
    options = (*OPTIONS, *channel_options(proxy), *_balancing(address, checks_health))
    if tls is None:
        return grpc.insecure_channel(address.target, options=options)
    if (tls.certificate is None) != (tls.key is None):
        raise CredentialsError(
            "a client's certificate and its key are given together or not at all"
        )
    ca = _read(tls.ca)
    _check(tls.ca, "certificates", lambda: ssl.create_default_context(cadata=ca.decode("ascii")))
    key = chain = None
    if tls.certificate and tls.key:
        key, chain = _read(tls.key), _read(tls.certificate)
        _check_pair(tls.certificate, tls.key)
    credentials = grpc.ssl_channel_credentials(ca, key, chain)
    # A socket has no host name to verify; its server is on this machine.
    server_name = tls.server_name or ("" if address.hosts else "localhost")
    name = (("grpc.ssl_target_name_override", server_name),) if server_name else ()
    return grpc.secure_channel(address.target, credentials, options=(*options, *name))


def _balancing(address: Address, checks_health: bool) -> tuple[tuple[str, str], ...]:
    if not address.is_balanced:
        return ()
    config = HEALTH_CHECKED if checks_health else ROUND_ROBIN
    return (("grpc.service_config", json.dumps(config)),)


def read_token(path: Path) -> str:
    """Return the first token of a file that has one a line.

    Raises:
        CredentialsError: it can't be read or has none.
    """
    lines = [line.strip() for line in _read(path).decode("ascii", "replace").splitlines()]
    for line in lines:
        if line:
            return line
    raise CredentialsError(f"{path}: has no token; expected one a line")


def authorization(token: str | None) -> tuple[tuple[str, str], ...]:
    """Return the metadata that carry a token; empty without one.

    Raises:
        CredentialsError: it has other than printable ASCII characters, or spaces.
    """
    if token is None:
        return ()
    if not token.isascii() or not token.isprintable() or " " in token or not token:
        raise CredentialsError("expected a token of printable ASCII characters without spaces")
    return (("authorization", f"Bearer {token}"),)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CredentialsError(f"{path}: can't be read: {error.strerror}") from error


def _check_pair(certificate: Path, key: Path) -> None:
    def no_passphrase() -> bytes:
        raise ValueError("a passphrase is not supported")

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    what = f"the certificate that belongs to the key {key}, which has no passphrase"
    _check(certificate, what, lambda: context.load_cert_chain(certificate, key, no_passphrase))


def _check(path: Path, expected: str, load: Callable[[], object]) -> None:
    """Load a file into OpenSSL, which says what is wrong; gRPC would only fail to connect."""
    try:
        load()
    except (ssl.SSLError, ValueError) as error:
        raise CredentialsError(f"{path}: expected {expected}, PEM: {error}") from error
