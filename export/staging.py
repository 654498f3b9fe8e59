"""The next version of a model: written under a temporary name, renamed into place when whole."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from export.bundle import is_version
from export.errors import BundleError
from export.manifest import MOST_VERSION


def check_writable(models_dir: Path, name: str) -> None:
    """Check that a bundle of the name can be written, before hours of training.

    Raises:
        OSError: it can't.
        BundleError: the newest version is the last that there can be.
    """
    folder = models_dir / name
    folder.mkdir(parents=True, exist_ok=True)
    _next_version(folder)
    with tempfile.TemporaryFile(dir=folder):
        pass


@contextmanager
def staged_bundle(models_dir: Path, name: str) -> Iterator[tuple[Path, int]]:
    """Give a temporary folder and the version that it becomes.

    The folder is renamed to `models_dir/name/version` when the block ends, and
    removed when it raises: a reader sees a whole bundle or none. Who comes meanwhile
    waits, for else both would have the same version.
    """
    parent = models_dir / name
    parent.mkdir(parents=True, exist_ok=True)
    with _alone_in(parent):
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
def _alone_in(folder: Path) -> Iterator[None]:
    """Lock a folder while the block runs; the kernel frees it however the process ends."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _next_version(folder: Path) -> int:
    """Return the version after all that have an entry in a model's folder, a file perhaps."""
    newest = max((int(each.name) for each in folder.iterdir() if is_version(each.name)), default=0)
    if newest == MOST_VERSION:
        raise BundleError(
            f"{folder / str(newest)}: is the last version that there can be; "
            "move it away to publish another"
        )
    return newest + 1


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
