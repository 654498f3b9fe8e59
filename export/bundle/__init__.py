"""Bundles: the manifest, the files and their hashes, reading and publishing."""

from export.bundle.folders import (
    EXPECTED_VERSION,
    find_bundle,
    folder_of,
    is_version,
    model_folders,
    versions,
)
from export.bundle.reading import Bundle, open_bundle

__all__ = [
    "EXPECTED_VERSION",
    "Bundle",
    "find_bundle",
    "folder_of",
    "is_version",
    "model_folders",
    "open_bundle",
    "versions",
]
