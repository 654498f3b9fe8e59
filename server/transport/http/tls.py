"""TLS of the HTTP port: the certificate in use at the moment of each new connection."""

import os
import ssl
from collections.abc import Callable
from functools import lru_cache

from server.security.tls import Credentials, ServerTls

PROTOCOLS = ["h2", "http/1.1"]


def ssl_context(tls: ServerTls, on_failure: Callable[[], None]) -> ssl.SSLContext:
    """Return a context whose connections use what the files hold when they begin.

    `on_failure` is called for each handshake that fails; one that is broken off is none.
    """
    context = _context(tls.watched.current())

    class Connection(ssl.SSLObject):
        def do_handshake(self) -> None:
            try:
                super().do_handshake()
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                raise
            except ssl.SSLError:
                on_failure()
                raise

    context.sslobject_class = Connection

    def on_hello(connection: ssl.SSLObject, *_name_and_context: object) -> None:
        connection.context = _context(tls.watched.current())

    context.sni_callback = on_hello
    return context


@lru_cache(maxsize=2)
def _context(credentials: Credentials) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(PROTOCOLS)
    # OpenSSL takes files alone: this one is in memory, and nobody else's.
    with os.fdopen(os.memfd_create("tls"), "wb") as pem:
        pem.write(credentials.key + b"\n" + credentials.chain)
        pem.flush()
        context.load_cert_chain(f"/proc/self/fd/{pem.fileno()}")
    if credentials.client_ca is not None:
        context.load_verify_locations(cadata=credentials.client_ca.decode())
        context.verify_mode = ssl.CERT_REQUIRED
    return context
