"""Bundles on disk: `models/<name>/<version>/`, read with hashes checked."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from export.bundle.manifest import MANIFEST_NAME, MOST_VERSION, UNSEALED, File, Manifest
from export.errors import BundleError

EXPECTED_VERSION = f"a number from 1 to {MOST_VERSION} in plain digits"
_VERSION = re.compile(r"[1-9][0-9]{0,18}")
_LIKE_VERSION = re.compile(r"[+-]?\d[\d.,_+-]*")  # digits of any script; dates and 1.5, too

# What file systems and desktops leave in a folder, beside names that begin with a dot, such as a
# ConfigMap's ..data, .nfs0000, .DS_Store, ._model.onnx. No runtime opens a file that the manifest
# does not list, and it lists none of such names: they change nothing that is served.
LEFT_BY_SYSTEMS = {
    "lost+found",
    "thumbs.db",
    "ehthumbs.db",
    "desktop.ini",
    "$recycle.bin",
    "system volume information",
    "@eadir",
    "#recycle",
    "#snapshot",
}


@dataclass(frozen=True)
class Bundle:
    """A published model: its folder and its manifest."""

    path: Path
    manifest: Manifest

    def read(self, name: str) -> bytes:
        """Return the bytes of a file, which are the bytes that were hashed.

        Raises:
            BundleError: the file is missing or differs from the manifest.
        """
        entry = next((file for file in self.manifest.files if file.name == name), None)
        if entry is None:
            raise BundleError(f"{self.path / MANIFEST_NAME} lists no file {name!r}")
        path = self.path / name
        try:
            data = path.read_bytes()
        except OSError as error:
            raise BundleError(f"{path}: can't be read: {error.strerror}") from error
        if describe(name, data) != entry:
            raise BundleError(
                f"{path}: the manifest says {entry.size_bytes} bytes with SHA-256 {entry.sha256}, "
                f"the file has {len(data)} bytes with {digest(data)}; "
                "it was damaged or replaced: restore the bundle or train again"
            )
        return data

    def verify_files(self) -> None:
        """Check every file that the manifest lists.

        Raises:
            BundleError: a file is missing or differs.
        """
        for file in self.manifest.files:
            self.read(file.name)

    def check_sizes(self) -> None:
        """Check that every file is there, with as many bytes as the manifest says; read none.

        Raises:
            BundleError: a file is missing, or is shorter or longer.
        """
        for file in self.manifest.files:
            path = self.path / file.name
            try:
                size = path.stat().st_size
            except OSError as error:
                raise BundleError(f"{path}: can't be read: {error.strerror}") from error
            if size != file.size_bytes:
                raise BundleError(
                    f"{path}: the manifest says {file.size_bytes} bytes, the file has {size}; "
                    "it is not copied to its end, or was damaged or replaced"
                )

    def unlisted_files(self) -> list[str]:
        """Return the names of the files that lie there without being of the bundle.

        What file systems and desktops leave there is not among them.

        Raises:
            BundleError: the folder can't be read.
        """
        listed = {file.name for file in self.manifest.files} | {MANIFEST_NAME}
        try:
            names = {entry.name for entry in self.path.iterdir()} - listed
        except OSError as error:
            raise BundleError(f"{self.path}: can't be read: {error.strerror}") from error
        return sorted(
            name for name in names if name[0] != "." and name.lower() not in LEFT_BY_SYSTEMS
        )


def digest(data: bytes) -> str:
    """Return the SHA-256 of data, as a manifest has it."""
    return hashlib.sha256(data).hexdigest()


def describe(name: str, data: bytes) -> File:
    """Return the entry that a manifest has of a file."""
    return File(name=name, size_bytes=len(data), sha256=digest(data))


def open_bundle(path: Path) -> Bundle:
    """Open the bundle in a folder; its files are checked when they are read.

    Raises:
        BundleError: there is no bundle, or its manifest is malformed or was changed.
    """
    manifest_path = path / MANIFEST_NAME
    try:
        text = manifest_path.read_bytes()
    except OSError as error:
        raise BundleError(f"{manifest_path}: can't be read: {error}") from error
    manifest = _parse(manifest_path, text)
    found = digest(text.replace(manifest.sha256.encode(), UNSEALED.encode(), 1))
    if found != manifest.sha256:
        raise BundleError(
            f"{manifest_path}: says that its own SHA-256 is {manifest.sha256}, it is {found}; "
            "it was damaged or edited: restore the bundle or train again"
        )
    return Bundle(path, manifest)


def _parse(manifest_path: Path, text: bytes) -> Manifest:
    try:
        return Manifest.model_validate_json(text)
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc'])) or 'manifest'}: {fault['msg']}"
            for fault in error.errors()
        )
        raise BundleError(f"{manifest_path}: {faults}") from error


class Folders(NamedTuple):
    """What lies in the folder of a model."""

    versions: list[int]  # ascending
    unusable: list[str]  # names that look like a version and can be none, ascending


def model_folders(models_dir: Path, name: str) -> Folders:
    """Return the versions of a model in a folder of bundles, and what looks like one.

    Raises:
        BundleError: the folder can't be read.
    """
    folder = models_dir / name
    try:
        found = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
    except (FileNotFoundError, NotADirectoryError):
        return Folders([], [])
    except OSError as error:
        raise BundleError(f"{folder}: can't be read: {error.strerror}") from error
    usable = {each for each in found if is_version(each)}
    unusable = [each for each in found if each not in usable and _LIKE_VERSION.fullmatch(each)]
    return Folders(sorted(map(int, usable)), unusable)


def versions(models_dir: Path, name: str) -> list[int]:
    """Return the versions of a model in a folder of bundles, ascending.

    Raises:
        BundleError: the folder can't be read.
    """
    return model_folders(models_dir, name).versions


def is_version(name: str) -> bool:
    """Tell if a folder is that of a version: its number in plain digits, as str() writes it."""
    return bool(_VERSION.fullmatch(name)) and int(name) <= MOST_VERSION


def find_bundle(models_dir: Path, name: str, version: int | None) -> Bundle:
    """Open a version of a model, the newest if None.

    Raises:
        BundleError: it is not there (the text names what is), is malformed, or
            its manifest is that of another model.
    """
    found, unusable = model_folders(models_dir, name)
    if not found and unusable:
        raise BundleError(
            f"no version of model {name!r} in {models_dir} (folders there: "
            f"{', '.join(map(ascii, unusable))}); expected {EXPECTED_VERSION}"
        )
    if not found:
        models = sorted(path.parent.parent.name for path in models_dir.glob(f"*/*/{MANIFEST_NAME}"))
        there = f"models there: {', '.join(dict.fromkeys(models))}" if models else "no models there"
        raise BundleError(f"no model {name!r} in {models_dir} ({there})")
    if version is not None and version not in found:
        raise BundleError(
            f"no version {version} of model {name!r} in {models_dir} (versions there: "
            f"{', '.join(map(str, found))})"
        )
    wanted = version or found[-1]
    bundle = open_bundle(models_dir / name / str(wanted))
    if (bundle.manifest.name, bundle.manifest.version) != (name, wanted):
        raise BundleError(
            f"{bundle.path / MANIFEST_NAME}: is of {bundle.manifest.name!r} version "
            f"{bundle.manifest.version}, but lies in the folder of {name!r} version {wanted}; "
            "move it to its own, or train into a models folder that has the earlier versions"
        )
    return bundle
