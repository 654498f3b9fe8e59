"""A bundle on disk, read with its hashes checked."""

from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from export.bundle.hashes import describe, digest
from export.bundle.manifest import MANIFEST_NAME, UNSEALED, Manifest
from export.errors import BundleError

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

    @property
    def names(self) -> set[str]:
        """The names of the files that the manifest lists."""
        return {file.name for file in self.manifest.files}

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
                    "it was not copied completely, or was damaged or replaced"
                )

    def unlisted_files(self) -> list[str]:
        """Return the names of files in the folder that are not part of the bundle.

        Files that file systems and desktops create are left out.

        Raises:
            BundleError: the folder can't be read.
        """
        listed = self.names | {MANIFEST_NAME}
        try:
            names = {entry.name for entry in self.path.iterdir()} - listed
        except OSError as error:
            raise BundleError(f"{self.path}: can't be read: {error.strerror}") from error
        return sorted(
            name for name in names if name[0] != "." and name.lower() not in LEFT_BY_SYSTEMS
        )


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
        violations = "; ".join(
            f"{'.'.join(map(str, one['loc'])) or 'manifest'}: {one['msg']}"
            for one in error.errors()
        )
        raise BundleError(f"{manifest_path}: {violations}") from error
