"""Who may connect and call, by the settings."""

from dataclasses import dataclass
from typing import Any

import structlog

from export.loopback import is_loopback
from server.addresses import unix_path
from server.config import ServerSettings
from server.observability.metrics import ServerMetrics
from server.security.reloading import ReloadedValue, start_reloading
from server.security.tls import ServerTls, TlsFiles
from server.security.tokens import Tokens

log = structlog.get_logger()


@dataclass(frozen=True)
class Security:
    """TLS and tokens, each None if it is not configured."""

    tls: ServerTls | None
    tokens: Tokens | None

    def follow(self, metrics: ServerMetrics) -> None:
        """Reload the files when they change; publish in the metrics whether that succeeds."""
        files: dict[str, ReloadedValue[Any]] = {}
        if self.tls:
            files["tls"] = self.tls.watched
        if self.tokens:
            files["tokens"] = self.tokens.watched
        if files:
            metrics.watch_files({name: each.is_current for name, each in files.items()})
            start_reloading(list(files.values()), metrics.count_failure)
        if self.tls:
            metrics.watch_certificate(self.tls.expiry_timestamp)


def open_security(settings: ServerSettings) -> Security:
    """Read the files that the settings name; warn if other machines reach a port without TLS.

    Raises:
        StartError: a file is missing or wrong; the text names it.
    """
    tls = None
    if settings.tls_cert and settings.tls_key:
        tls = ServerTls(TlsFiles(settings.tls_cert, settings.tls_key, settings.tls_client_ca))
    tokens = Tokens(settings.token_file) if settings.token_file else None
    if tls is None and not unix_path(settings.host) and not is_loopback(settings.host):
        missing = ["--tls-cert and --tls-key"] + ([] if tokens else ["--token-file"])
        log.warning(
            "listening beyond this machine without TLS: "
            + ("tokens and images can be read on the way" if tokens else "anybody may call"),
            host=settings.host,
            missing=missing,
        )
    return Security(tls, tokens)
