"""TLS of the native transport: the extension's own library reads what the files held."""

from server.errors import StartError
from server.security.tls import CERT, CLIENT_CA, KEY, Credentials
from server.transport.native.extension import Extension

SETTINGS = {"certificate": CERT, "key": KEY, "client CA": CLIENT_CA}  # by the extension's words


def use_credentials(extension: Extension, credentials: Credentials) -> None:
    """Have new connections use the credentials.

    Raises:
        StartError: the extension can't use them, though grpcio may; the text names the setting.
    """
    try:
        extension.set_tls(credentials.chain, credentials.key, credentials.client_ca)
    except ValueError as error:
        which, _, reason = str(error).partition(": ")
        raise StartError(
            f"{SETTINGS[which]}: the native transport can't use it: {reason}; "
            "give another, or take --transport python"
        ) from error
