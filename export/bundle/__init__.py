"""Bundles: the manifest, the files and their hashes, reading and publishing."""

from export.bundle.reading import (
    EXPECTED_VERSION,
    Bundle,
    Folders,
    find_bundle,
    is_version,
    model_folders,
    open_bundle,
    versions,
)

__all__ = [
    "EXPECTED_VERSION",
    "Bundle",
    "Folders",
    "find_bundle",
    "is_version",
    "model_folders",
    "open_bundle",
    "versions",
]
