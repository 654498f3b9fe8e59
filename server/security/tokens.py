"""Bearer tokens: a call needs one of those in a file."""

import re
from collections.abc import Sequence
from functools import partial
from hmac import compare_digest
from pathlib import Path

from server.errors import StartError, UnauthenticatedError
from server.security.reloading import ReloadedValue, read_file, warn_if_readable_by_others

SETTING = "--token-file"
TOKEN = re.compile(rb"[A-Za-z0-9._~+/-]+=*")  # RFC 6750, b64token
SCHEME = b"bearer"  # case does not matter: RFC 9110, 11.1
EXPECTED = "send 'authorization: Bearer <token>' as metadata, which over HTTP is a header"


class Tokens:
    """The tokens of a file, one a line; a change of the file counts within a second."""

    def __init__(self, path: Path) -> None:
        """Read the file.

        Raises:
            StartError: it can't be read, has no token, or a line that is none.
        """
        self.watched = ReloadedValue("tokens", [path], partial(read_tokens, path))

    def check(self, metadata: Sequence[tuple[str, str | bytes]]) -> None:
        """Return if the metadata of a call have one of the tokens.

        Raises:
            UnauthenticatedError: they have none; the text does not repeat what they have.
        """
        values = [value for key, value in metadata if key == "authorization"]
        if not values:
            raise UnauthenticatedError(f"the call has no token; {EXPECTED}")
        if len(values) > 1:
            raise UnauthenticatedError(f"the call has {len(values)} authorizations; {EXPECTED}")
        value = values[0] if isinstance(values[0], bytes) else values[0].encode()
        scheme, _, token = value.partition(b" ")
        if scheme.lower() != SCHEME or not TOKEN.fullmatch(token.strip()):
            raise UnauthenticatedError(f"the call's authorization is malformed; {EXPECTED}")
        # All are compared, each in a time that does not tell how much of it was right.
        right = [compare_digest(token.strip(), each) for each in self.watched.current()]
        if not any(right):
            raise UnauthenticatedError(f"the call's token is not one of the server's; {EXPECTED}")


def read_tokens(path: Path) -> tuple[bytes, ...]:
    """Return the tokens of a file, one a line; space around them and empty lines do not count.

    Raises:
        StartError: it can't be read, has no token, or a line that is none.
    """
    lines = [line.strip() for line in read_file(SETTING, path).splitlines()]
    for number, line in enumerate(lines, 1):
        if line and not TOKEN.fullmatch(line):
            raise StartError(
                f"{SETTING} {path}: line {number} is no token; expected letters, digits and "
                "-._~+/ alone, with = at the end or not"
            )
    tokens = tuple(line for line in lines if line)
    if not tokens:
        raise StartError(f"{SETTING} {path}: has no token; expected one a line")
    warn_if_readable_by_others(SETTING, path)
    return tokens
