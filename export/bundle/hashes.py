"""Hashes of files, as a manifest has them."""

import hashlib

from export.bundle.manifest import File


def digest(data: bytes) -> str:
    """Return the SHA-256 of data, as a manifest has it."""
    return hashlib.sha256(data).hexdigest()


def describe(name: str, data: bytes) -> File:
    """Return the entry that a manifest has of a file."""
    return File(name=name, size_bytes=len(data), sha256=digest(data))
