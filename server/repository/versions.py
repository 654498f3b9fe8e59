"""Which version to serve: what the folder of a model holds, and what failed before.

The rules:

1. Without a pinned version the newest is wanted. One that can't be loaded gives way
   to the next older one, down to the version that is served, which stays. If that
   one's folder is gone, the newest that is left is loaded: so a version is rolled back.
2. With a pinned version that one alone is wanted, and again if its content changes.
3. What is served goes on being served until another is ready, also when its folder is
   gone or damaged: it is in memory.
4. A folder whose files are not all there, or not yet what the manifest says, may be
   incomplete: that is a failure only if nothing in it has changed for a while, or
   if a reload was requested.
5. A folder whose name is no version, however much like one, is ignored and logged once.
6. What failed is tried again when anything in its folder changes, when a reload
   is requested, and once a minute: a disk may have failed and not the bundle.

Times are of a monotonic clock, except those of a Failure. No event loop here.
"""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Literal, TypeVar

import structlog

from export.bundle import EXPECTED_VERSION, Bundle, find_bundle, folder_of, model_folders
from export.bundle.manifest import Manifest
from export.errors import BundleError, ExportError, ParityError
from server.errors import NeedsRestartError

Loaded = TypeVar("Loaded")
State = Literal["READY", "LOADING", "UNAVAILABLE"]  # as Triton names them

SETTLE_SECONDS = 10
RETRY_SECONDS = 60

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a version that should be served is not."""

    version: int
    text: str
    time: float  # seconds since 1970


@dataclass(frozen=True, slots=True)
class VersionStatus:
    """What there is to say of a version in the folder."""

    version: int
    state: State
    reason: str  # why it is in this state; empty: that is plain


@dataclass(frozen=True, slots=True)
class PollResult(Generic[Loaded]):
    """What a poll of the folder found."""

    loaded: Loaded | None  # None: what is served stays
    failure: Failure | None  # of what should be served in its place; None: all is as it should be
    failed: int  # attempts that failed in this poll


@dataclass(slots=True)
class _Tried:
    """What is known of a version that could not be loaded."""

    state: object
    since: float  # when it was first seen in this state
    incomplete: str = ""  # what is not there yet
    failure: Failure | None = None
    due: float = 0.0  # until then it is not tried again in this state


def preferred(there: Sequence[int], served: int | None, pinned: int | None) -> list[int]:
    """Return the versions that are to be tried, best first; the served one, if there, is last."""
    wanted = sorted((v for v in there if pinned in (None, v)), reverse=True)
    return wanted[: wanted.index(served) + 1] if served in wanted else wanted


class ModelRepository(Generic[Loaded]):
    """Finds the version to serve and loads it; remembers what failed.

    `load` makes of a bundle what serves it, or raises. One poll at a time.
    """

    def __init__(
        self,
        models_dir: Path,
        name: str,
        pinned: int | None,
        load: Callable[[Bundle], Loaded],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._models_dir = models_dir
        self._name = name
        self._pinned = pinned
        self._load = load
        self._clock = clock
        self._there: tuple[int, ...] = ()  # when it was last looked
        self._loading: int | None = None  # what is being loaded, or was in the last poll
        self._tried: dict[int, _Tried] = {}
        self._missing: Failure | None = None
        self._unusable: list[str] = []
        self._failed = 0

    def statuses(self, served: int) -> list[VersionStatus]:
        """Return what is known of every version, the newest first; nothing is read from the disk.

        Any thread may ask, also while a poll goes on or hangs.
        """
        return [
            VersionStatus(version, *self._status(version, served))
            for version in sorted({*self._there, served}, reverse=True)
        ]

    def _status(self, version: int, served: int) -> tuple[State, str]:
        tried, missing = self._tried.get(version), self._missing
        failure = tried.failure.text if tried and tried.failure else ""
        if version == served:  # what is in its folder now may be wrong, or gone
            return "READY", failure or (missing.text if missing else "")
        if version == self._loading:
            return "LOADING", ""
        if failure:
            return "UNAVAILABLE", failure
        if tried and tried.incomplete:
            return "UNAVAILABLE", f"it is not complete yet: {tried.incomplete}"
        return "UNAVAILABLE", self._why_untried(version, served)

    def _why_untried(self, version: int, served: int) -> str:
        if self._pinned not in (None, version):
            return f"version {self._pinned} alone is wanted (--model-version)"
        if version < served:
            return f"version {served}, which is newer, is served"
        return "it has not been tried yet"

    def first(self) -> tuple[Loaded, Failure | None]:
        """Load the version to begin with; return it, and why it is not a better one.

        Raises:
            ExportError: none can be loaded; it is that of the most wanted one.
        """
        errors: list[ExportError] = []
        wanted = preferred(self._versions(), None, self._pinned)
        sought: Sequence[int | None] = wanted or [self._pinned]  # the error tells what there is
        for version in sought:
            state = _state(self._folder(version)) if version else None
            try:
                loaded = self._load(find_bundle(self._models_dir, self._name, version))
                return loaded, self._standing(wanted, version)
            except (BundleError, ParityError) as error:
                errors.append(error)
                if version and len(wanted) > 1:
                    tried = self._tried[version] = _Tried(state, self._clock())
                    self._fail(tried, version, error, serving=None)
        raise errors[0]

    def poll(self, served: Manifest, *, force: bool) -> PollResult[Loaded]:
        """Return whether another version should be served, loaded if it can be.

        `force` tries again at once what has failed.
        """
        self._failed, self._loading = 0, None
        try:
            there = self._versions()
        except BundleError as error:
            self._there = ()
            return PollResult(None, self._miss(served, str(error)), self._failed)
        wanted = preferred(there, served.version, self._pinned)
        self._tried = {
            version: self._tried[version] for version in wanted if version in self._tried
        }
        if not wanted:
            text = (
                f"{self._folder(served.version)}: is gone, and there is no other version to serve; "
                "what was loaded of it is served on: put it back, or publish another"
            )
            return PollResult(None, self._miss(served, text), self._failed)
        self._missing = None
        for version in wanted:
            loaded = self._try(version, served, force=force)
            if loaded is not None:
                self._tried.pop(version, None)
                return PollResult(loaded, self._standing(wanted, version), self._failed)
        return PollResult(None, self._standing(wanted, None), self._failed)

    def _versions(self) -> list[int]:
        """Return the versions that are there; log what only looks like one."""
        there = model_folders(self._models_dir, self._name)
        for folder in there.unusable:
            if folder not in self._unusable:
                log.warning(
                    "folder ignored, it is no version",
                    folder=ascii(folder),
                    expected=EXPECTED_VERSION,
                )
        self._unusable = there.unusable
        self._there = tuple(there.versions)
        return there.versions

    def _try(self, version: int, served: Manifest, *, force: bool) -> Loaded | None:
        """Return what serves a version; None if it is the served one or can't be loaded."""
        now, state = self._clock(), _state(self._folder(version))
        tried = self._tried.setdefault(version, _Tried(state, now))
        if tried.state != state:
            tried.state, tried.since, tried.due = state, now, 0.0
        if now < tried.due and not force:
            return None
        try:
            bundle = find_bundle(self._models_dir, self._name, version)
            bundle.check_sizes()
            if (version, bundle.manifest.sha256) == (served.version, served.sha256):
                del self._tried[version]
                return None
            self._loading = version
            return self._load(bundle)
        except Exception as error:  # noqa: BLE001 (whatever it is, what is served stays)
            is_incomplete = isinstance(error, BundleError) and now < tried.since + SETTLE_SECONDS
            if is_incomplete and not force:
                if not tried.incomplete:
                    log.info("version is not complete yet", version=version, reason=str(error))
                tried.incomplete = str(error)
            else:
                tried.due = now + RETRY_SECONDS
                self._fail(tried, version, error, serving=served.version)
        return None

    def _fail(self, tried: _Tried, version: int, error: Exception, serving: int | None) -> None:
        """Record a failure; log it if it is new."""
        self._loading = None
        self._failed += 1
        is_expected = isinstance(error, ExportError | NeedsRestartError)
        text = (
            str(error) if is_expected else f"unforeseen: {error!r}; the server's log has the cause"
        )
        if tried.failure is None or tried.failure.text != text:
            cause = None if is_expected else error
            log.warning(
                "reload failed", version=version, serving=serving, reason=text, exc_info=cause
            )
        tried.failure = Failure(version, text, time.time())

    def _miss(self, served: Manifest, text: str) -> Failure:
        """Return the failure that no other version is there; log it when it is new."""
        if self._missing is None or self._missing.text != text:
            self._failed += 1
            self._missing = Failure(served.version, text, time.time())
            log.warning(
                "reload failed", version=served.version, serving=served.version, reason=text
            )
        return self._missing

    def _standing(self, wanted: Sequence[int], loaded: int | None) -> Failure | None:
        """Return the failure of the most wanted version, unless a better one was loaded."""
        better = wanted[: wanted.index(loaded)] if loaded in wanted else wanted
        failures = (self._tried[version].failure for version in better if version in self._tried)
        return next((failure for failure in failures if failure is not None), None)

    def _folder(self, version: int) -> Path:
        return folder_of(self._models_dir, self._name) / str(version)


def _state(folder: Path) -> object:
    """Return what differs when anything in a folder has changed, without reading a file."""
    found = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                status = entry.stat()
                found.append((entry.name, status.st_ino, status.st_size, status.st_ctime_ns))
    except OSError as error:
        found.append((error.strerror or "", 0, 0, 0))
    return sorted(found)
