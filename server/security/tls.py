"""TLS of the gRPC port: certificate and key from files, reloaded when they change."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TypeVar

import structlog
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from server.errors import StartError
from server.security.reloading import ReloadedValue, read_file, warn_if_readable_by_others

CERT, KEY, CLIENT_CA = "--tls-cert", "--tls-key", "--tls-client-ca"
PrivateKey = RSAPrivateKey | EllipticCurvePrivateKey  # that TLS clients commonly take
Parsed = TypeVar("Parsed")

log = structlog.get_logger()


@dataclass(frozen=True)
class TlsFiles:
    """PEM files: the certificate with its chain, its key, and the CAs of clients or None."""

    certificate: Path
    key: Path
    client_ca: Path | None


@dataclass(frozen=True)
class Credentials:
    """What the files held, PEM; the certificate expires at `expiry`."""

    chain: bytes
    key: bytes = field(repr=False)
    client_ca: bytes | None
    expiry: datetime


class ServerTls:
    """The credentials of the port; each new connection uses what the files hold at that moment.

    With CAs of clients, a client without a certificate of theirs gets no connection.
    """

    def __init__(self, files: TlsFiles) -> None:
        """Read the files.

        Raises:
            StartError: one is missing or wrong; the text names it.
        """
        paths = [path for path in (files.certificate, files.key, files.client_ca) if path]
        self.watched = ReloadedValue("TLS files", paths, partial(read_credentials, files))
        self.asks_clients = files.client_ca is not None

    def expiry_timestamp(self) -> float:
        """Return when the certificate expires, in seconds since 1970."""
        return self.watched.current().expiry.timestamp()


def read_credentials(files: TlsFiles) -> Credentials:
    """Read and check the files; warn of certificates that are not valid today.

    Raises:
        StartError: a file can't be read, is no PEM of its kind, or the key is that
            of another certificate.
    """
    chain, key = read_file(CERT, files.certificate), read_file(KEY, files.key)
    client_ca = read_file(CLIENT_CA, files.client_ca) if files.client_ca else None
    certificate = _certificates(CERT, files.certificate, chain)[0]
    if _private_key(files.key, key).public_key() != certificate.public_key():
        raise StartError(
            f"{KEY} {files.key}: is not the key of the certificate in {CERT} {files.certificate}; "
            "give the two that were made together"
        )
    warn_if_readable_by_others(KEY, files.key)
    if files.client_ca and client_ca is not None:
        _certificates(CLIENT_CA, files.client_ca, client_ca)
    return Credentials(chain, key, client_ca, certificate.not_valid_after_utc)


def _certificates(setting: str, path: Path, data: bytes) -> Sequence[x509.Certificate]:
    """Return the certificates of a file, at least one."""
    found = _parse(setting, path, "PEM certificates", x509.load_pem_x509_certificates, data)
    now = datetime.now(UTC)
    for each in found:
        if not each.not_valid_before_utc <= now <= each.not_valid_after_utc:
            log.warning(
                "certificate is not valid today; clients will refuse it",
                setting=setting,
                file=str(path),
                subject=each.subject.rfc4514_string(),
                valid_from=each.not_valid_before_utc.isoformat(),
                valid_until=each.not_valid_after_utc.isoformat(),
            )
    return found


def _private_key(path: Path, data: bytes) -> PrivateKey:
    load = partial(load_pem_private_key, password=None)
    key = _parse(KEY, path, "a PEM private key without a passphrase", load, data)
    if not isinstance(key, PrivateKey):
        raise StartError(f"{KEY} {path}: expected an RSA or elliptic-curve key")
    return key


def _parse(
    setting: str, path: Path, expected: str, load: Callable[[bytes], Parsed], data: bytes
) -> Parsed:
    try:
        return load(data)
    except (ValueError, TypeError) as error:  # TypeError: it has a passphrase
        raise StartError(f"{setting} {path}: expected {expected}: {error}") from error
