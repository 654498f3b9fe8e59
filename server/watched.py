"""Values that come from files and follow them: certificates, tokens."""

import stat
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

import structlog

from server.errors import StartError

Value = TypeVar("Value")

LOOK_SECONDS = 1.0  # files are looked at no more often, whatever comes in

log = structlog.get_logger()


class Watched(Generic[Value]):
    """The value of some files, read anew after they change.

    Files that are wrong then, say because they are only half written, leave the
    value as it was, and the log says why once. Any thread may ask.
    """

    def __init__(self, name: str, paths: Sequence[Path], read: Callable[[], Value]) -> None:
        """Read the files.

        Raises:
            StartError: what `read` raises of files that are wrong.
        """
        self._name = name
        self._paths = tuple(paths)
        self._read = read
        self._lock = threading.Lock()
        self._seen = self._state()
        self._value = read()
        self._next_look = time.monotonic() + LOOK_SECONDS

    def current(self) -> Value:
        """Return the value, as of a second ago or later."""
        if time.monotonic() >= self._next_look:
            with self._lock:
                self._look()
        return self._value

    def _look(self) -> None:
        self._next_look = time.monotonic() + LOOK_SECONDS
        state = self._state()  # before the files are read: what changes meanwhile is seen next time
        if state == self._seen:
            return
        self._seen = state
        try:
            self._value = self._read()
        except StartError as error:
            log.error(f"{self._name} not renewed, the old stay in use", reason=str(error))  # noqa: TRY400 (the text says it all)
        else:
            log.info(f"{self._name} renewed")

    def _state(self) -> list[tuple[int, ...] | None]:
        """Return what differs when a file was written or another took its place."""
        return [_identity(path) for path in self._paths]


def _identity(path: Path) -> tuple[int, ...] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


def read_file(setting: str, path: Path) -> bytes:
    """Return a file's bytes.

    Raises:
        StartError: it can't be read; the text names the setting and the file.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise StartError(f"{setting} {path}: can't be read: {error.strerror}") from error


def warn_if_readable_by_others(setting: str, path: Path) -> None:
    """Log a warning if every user of the machine may read a secret."""
    if path.stat().st_mode & stat.S_IROTH:
        log.warning("a secret is readable by every user", setting=setting, file=str(path))
