"""Compressed bodies: gzip and deflate, which in HTTP is zlib's format."""

import asyncio
import re
import zlib

from server.errors import InvalidArgumentError, Violation, quote

WINDOW_BITS = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
LEVEL = 1  # floats shrink little, at any level; this one takes a third of the default's time
MIN_BYTES = 1024  # a smaller response fits into a packet
CODING = re.compile(r"\s*([\w*-]+)\s*(?:;\s*q=([01](?:\.\d{0,3})?)\s*)?", re.ASCII)  # RFC 9110


class BodyTooLargeError(Exception):
    """A body that grows beyond the limit as it is decompressed."""


def decompress(body: bytes, coding: str, max_bytes: int) -> bytes:
    """Return a body as it was before it got that Content-Encoding.

    Raises:
        InvalidArgumentError: it is not of that form, or the form is unknown.
        BodyTooLargeError: it has more bytes than allowed.
    """
    coding = coding.strip().lower()
    if coding in {"", "identity"}:
        return body
    if coding not in WINDOW_BITS:
        raise _invalid(f"expected a Content-Encoding of gzip or deflate, got {quote(coding)}")
    stream = zlib.decompressobj(WINDOW_BITS[coding])
    try:
        whole = stream.decompress(body, max_bytes + 1)
    except zlib.error as error:
        raise _invalid(f"expected a body in {coding}: {quote(str(error))}") from None
    if len(whole) > max_bytes:
        raise BodyTooLargeError
    if not stream.eof:
        raise _invalid(f"expected a body in {coding}, got only its start")
    if stream.unused_data:
        raise _invalid(f"expected a body in {coding}, got {len(stream.unused_data)} more bytes")
    return whole


def _invalid(text: str) -> InvalidArgumentError:
    return InvalidArgumentError([Violation("request", text)])


def chosen_coding(accepted: str) -> str | None:
    """Return the coding for a response by the value of Accept-Encoding; None: as it is."""
    weights: dict[str, float] = {}
    for each in accepted.lower().split(","):
        if found := CODING.fullmatch(each):
            weights[found[1]] = float(found[2] or 1)
    plain = weights.get("identity", 0.0)
    offered = {each: weights.get(each, weights.get("*", 0.0)) for each in WINDOW_BITS}
    best = max(offered, key=lambda each: offered[each])  # of two alike, the first
    return best if offered[best] > 0 and offered[best] >= plain else None


async def compress(body: bytes, coding: str) -> bytes:
    """Return a body in that coding; made in a thread, for it takes long and lets others run."""
    return await asyncio.to_thread(_compress, body, coding)


def _compress(body: bytes, coding: str) -> bytes:
    stream = zlib.compressobj(LEVEL, wbits=WINDOW_BITS[coding])
    return stream.compress(body) + stream.flush()
