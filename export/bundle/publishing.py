"""Bundles are written under a temporary name, with hashes, and renamed when complete."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from export.bundle.folders import is_version
from export.bundle.hashes import describe, digest
from export.bundle.manifest import MANIFEST_NAME, MAX_VERSION, UNSEALED, File, Manifest
from export.bundle.reading import Bundle, open_bundle
from export.errors import BundleError


def write_bundle(folder: Path, manifest: Manifest, contents: Mapping[str, bytes]) -> Bundle:
    """Write the files and the manifest that lists them; return the bundle."""
    files = write_files(folder, contents)
    return write_manifest(folder, manifest.model_copy(update={"files": files}))


def write_files(folder: Path, contents: Mapping[str, bytes]) -> tuple[File, ...]:
    """Write files; return their entries for the manifest, by name."""
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return tuple(describe(*item) for item in sorted(contents.items()))


def write_manifest(folder: Path, manifest: Manifest) -> Bundle:
    """Write or replace the manifest of a bundle; return the bundle.

    It is sealed with its own SHA-256. A reader sees the old one or the new one, never a part.
    """
    unsealed = manifest.model_copy(update={"sha256": UNSEALED})
    text = unsealed.model_dump_json(indent=2).encode() + b"\n"
    sealed = text.replace(UNSEALED.encode(), digest(text).encode(), 1)
    temporary = folder / f".{MANIFEST_NAME}"
    temporary.write_bytes(sealed)
    _flush(temporary)
    temporary.replace(folder / MANIFEST_NAME)
    return open_bundle(folder)


def check_writable(models_dir: Path, name: str) -> None:
    """Check, before a training, that a bundle of the name can be written.

    Raises:
        OSError: the folder can't be written.
        BundleError: the newest version is the largest possible one.
    """
    folder = models_dir / name
    folder.mkdir(parents=True, exist_ok=True)
    _next_version(folder)
    with tempfile.TemporaryFile(dir=folder):
        pass


@contextmanager
def staged_bundle(models_dir: Path, name: str) -> Iterator[tuple[Path, int]]:
    """Yield a temporary folder and the version that it becomes.

    The folder is renamed to `models_dir/name/version` when the block ends, and
    removed when it raises: a reader sees a whole bundle or none. Other publications
    of the model wait meanwhile, so that each gets a version of its own.
    """
    parent = models_dir / name
    parent.mkdir(parents=True, exist_ok=True)
    with _locked(parent):
        version = _next_version(parent)
        folder = Path(tempfile.mkdtemp(prefix=".staged-", dir=parent))
        try:
            yield folder, version
            for path in (*folder.iterdir(), folder):
                _flush(path)
            folder.chmod(0o755)  # mkdtemp made it private
            folder.rename(parent / str(version))
            _flush(parent)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Lock a folder while the block runs; the kernel unlocks it when the process ends."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _next_version(folder: Path) -> int:
    """Return the version after the largest in a model's folder; a file counts as one, too."""
    newest = max((int(each.name) for each in folder.iterdir() if is_version(each.name)), default=0)
    if newest == MAX_VERSION:
        raise BundleError(
            f"{folder / str(newest)}: is the largest possible version; "
            "move it away to publish another"
        )
    return newest + 1


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
