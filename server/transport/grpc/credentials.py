"""TLS for grpcio: each handshake uses what the files hold at that moment."""

import grpc

from server.security.tls import Credentials, ServerTls


def server_credentials(tls: ServerTls) -> grpc.ServerCredentials:
    """Return grpcio's credentials for one address: each address follows the files by itself."""
    in_use = tls.watched.current()

    def renewed() -> grpc.ServerCertificateConfiguration | None:
        # gRPC asks before each handshake, in threads of its own; None is for no change.
        nonlocal in_use
        current = tls.watched.current()
        if current is in_use:
            return None
        in_use = current
        return _configuration(current)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(in_use),
        renewed,  # type: ignore[arg-type] # the stubs leave out that it may be None
        tls.asks_clients,
    )


def _configuration(credentials: Credentials) -> grpc.ServerCertificateConfiguration:
    pair = (credentials.key, credentials.chain)
    return grpc.ssl_server_certificate_configuration([pair], credentials.client_ca)
