"""Values that are reloaded when their files change: certificates, tokens."""

import stat
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Generic, TypeVar

import structlog

from server.errors import StartError
from server.observability.supervision import CountFailure, keep_thread_running

Value = TypeVar("Value")

REFRESH_SECONDS = 1.0  # between looks at files

log = structlog.get_logger()


class ReloadedValue(Generic[Value]):
    """The value of some files, which `refresh` reads again after they change.

    Files that are wrong then, say because they are only half written, leave the
    value as it was, and the log says why once. Those that can't be read are tried
    again at each refresh. Any thread may read the value, at no cost.
    """

    def __init__(self, name: str, paths: Sequence[Path], read: Callable[[], Value]) -> None:
        """Read the files.

        Raises:
            StartError: what `read` raises of files that are wrong.
        """
        self._name = name
        self._paths = tuple(paths)
        self._read = read
        self._seen = self._state()
        self._value = read()
        self._fault = ""  # of the files as they are; none: the value is what they hold
        self._users: list[Callable[[Value], None]] = []
        self._renewing = threading.Lock()
        self._again = False  # the fault is not in what the files hold: the same may be read later

    def is_current(self) -> bool:
        """Tell if the value is what the files held at the last refresh."""
        return not self._fault

    def current(self) -> Value:
        """Return the value, as of the last refresh."""
        return self._value

    def use(self, take: Callable[[Value], None]) -> None:
        """Hand the value to `take`, now and, in the thread that refreshes, when it is renewed.

        What it raises, now or then, goes the way of what `read` raises: the value is not renewed.
        """
        with self._renewing:
            take(self._value)
            self._users.append(take)

    def refresh(self) -> None:
        """Read the files if they have changed or could not be read; one thread at a time."""
        state = self._state()  # before the files are read: what changes meanwhile is seen next time
        if state == self._seen and not self._again:
            return
        try:
            value = self._read()
            self._renew(value)
        except Exception as error:  # noqa: BLE001 (a file may change or go in the middle)
            if state == self._state():
                self._fail(error, is_new=state != self._seen)
                self._seen = state
        else:
            self._seen, self._fault, self._again = state, "", False
            log.info(f"{self._name} renewed")

    def _renew(self, value: Value) -> None:
        with self._renewing:
            for take in self._users:
                take(value)
            self._value = value

    def _fail(self, error: Exception, *, is_new: bool) -> None:
        foreseen = isinstance(error, StartError)
        fault = str(error) if foreseen else repr(error)
        if is_new or fault != self._fault:
            event = f"{self._name} not renewed, the old stay in use"
            log.error(event, reason=fault, exc_info=None if foreseen else error)
        self._fault, self._again = fault, isinstance(error.__cause__ or error, OSError)

    def _state(self) -> list[tuple[int, ...] | None]:
        """Return what differs when a file was written or another took its place."""
        return [_identity(path) for path in self._paths]


def start_reloading(files: Sequence[ReloadedValue[Any]], count: CountFailure) -> None:
    """Refresh values at an interval, in a thread: a disk that hangs blocks nothing else."""

    def refresh_all() -> None:
        while True:
            time.sleep(REFRESH_SECONDS)
            for each in files:
                each.refresh()

    keep_thread_running("files", refresh_all, count)


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
    with suppress(OSError):  # it is gone by now: the next refresh reports it
        if path.stat().st_mode & stat.S_IROTH:
            log.warning("a secret is readable by every user", setting=setting, file=str(path))
