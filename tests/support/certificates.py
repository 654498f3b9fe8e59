"""Real certificates, made for a test, and the files that a server and its clients have of them."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme

from forward_client import Tls


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, in files."""

    certificate: Path
    key: Path

    def arguments(self) -> tuple[str, ...]:
        return ("--tls-cert", str(self.certificate), "--tls-key", str(self.key))


class Authority:
    """A CA of its own, with its files in a folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self._issued = 0
        self._ca = trustme.CA()
        self.ca = folder / "ca.pem"
        self._ca.cert_pem.write_to_path(self.ca)

    def issue(self, name: str = "localhost", *, days: float = 7) -> Pair:
        """Return a new certificate for a host; it expired if the days are negative."""
        self._issued += 1
        folder = self._folder / str(self._issued)
        folder.mkdir()
        pair = Pair(folder / f"{name}-cert.pem", folder / f"{name}-key.pem")
        self.renew(pair, name, days=days)
        return pair

    def renew(self, pair: Pair, name: str = "localhost", *, days: float = 7) -> None:
        """Put a new certificate into the files of another, each in one step."""
        now = datetime.now(UTC)
        issued = self._ca.issue_cert(
            name, not_before=now - timedelta(days=30), not_after=now + timedelta(days=days)
        )
        chain = b"".join(blob.bytes() for blob in issued.cert_chain_pems)
        for path, data in (
            (pair.certificate, chain),
            (pair.key, issued.private_key_pem.bytes()),
        ):
            beside = path.with_suffix(".new")
            beside.touch(mode=0o600)
            beside.write_bytes(data)
            beside.replace(path)

    def tls(self, own: Pair | None = None, *, server_name: str = "") -> Tls:
        """Return what a client needs that trusts this CA."""
        if own is None:
            return Tls(self.ca, server_name=server_name)
        return Tls(self.ca, own.certificate, own.key, server_name)
