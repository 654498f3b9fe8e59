"""Download a file: all of it, or an error that says why not."""

import urllib.request
from http.client import HTTPException
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlsplit

from training.proxies import ProxyHandler

SCHEMES = ("http", "https", "file")
SILENCE_SECONDS = 30  # without a byte for so long the download fails
MAX_BYTES = 1 << 30  # the datasets have 30 MB; a longer file is not one of them
CHUNK_BYTES = 1 << 20


class DownloadError(Exception):
    """A file that cannot be downloaded; the text says why, without the address."""


def download(url: str) -> bytes:
    """Return the bytes behind an http:, https: or file: URL.

    Raises:
        DownloadError: it can't be downloaded, or not completely.
    """
    if urlsplit(url).scheme not in SCHEMES:
        raise DownloadError(f"expected a URL of {', '.join(f'{name}:' for name in SCHEMES)}")
    # As a browser sends it: a space becomes %20, what is %20 already stays.
    request = urllib.request.Request(  # noqa: S310 (checked above)
        quote(url, safe="%/:=&?~#+!$,;'@()*[]"), headers={"User-Agent": "Forward"}
    )
    opener = urllib.request.build_opener(ProxyHandler)
    try:
        with opener.open(request, timeout=SILENCE_SECONDS) as response:
            data = bytearray()
            while chunk := response.read(CHUNK_BYTES):
                data += chunk
                if len(data) > MAX_BYTES:
                    raise DownloadError(f"it is longer than {MAX_BYTES:,} bytes")
            length = response.headers.get("Content-Length", "")
    except (OSError, HTTPException, ValueError) as error:
        raise DownloadError(_reason(error)) from error
    if length.isdecimal() and len(data) < int(length):
        raise DownloadError(f"the connection ended after {len(data):,} of {int(length):,} bytes")
    return bytes(data)


def _reason(error: Exception) -> str:
    if isinstance(error, URLError) and not isinstance(error, HTTPError):
        return str(error.reason)
    if isinstance(error, HTTPException):
        return f"the response is incomplete or not HTTP: {error!r}"
    return " ".join(str(error).split()) or repr(error)
