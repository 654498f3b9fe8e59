"""The files of the input: which there are, and of which kind each is."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from posixpath import dirname
from typing import Literal, NamedTuple

from pyarrow.fs import FileInfo, FileSelector, FileType

from deploy.ray.score.errors import ScoreError
from deploy.ray.score.locations import Location

Kind = Literal["parquet", "npy", "idx", "picture"]

# By the ends of the names: to look into every file of a bucket would take a request each.
_KINDS: dict[Kind, re.Pattern[str]] = {
    "parquet": re.compile(r".*\.(parquet|pq)"),
    "npy": re.compile(r".*\.npy"),
    "idx": re.compile(r".*([.-]idx3-ubyte|\.idx3?)(\.gz)?"),
    "picture": re.compile(r".*\.(png|jpe?g|gif|bmp|webp|tiff?)"),
}
EXPECTED = (
    "expected files whose names end in .parquet, .npy, .idx or -idx3-ubyte (also with .gz), .png, "
    ".jpg or that of another picture"
)


@dataclass(frozen=True)
class SourceFile:
    """A file of the input; `path` is relative to the input, and `number` its place in the list."""

    number: int
    path: str
    kind: Kind
    size_bytes: int


class Sources(NamedTuple):
    """The files of the input in the order of their names, and the folder that they are in."""

    folder: Location
    files: list[SourceFile]
    ignored: list[str]  # of no kind that is read
    sha256: str  # of names, sizes and times of change: of what is to be scored


def kind_of(name: str) -> Kind | None:
    """Return the kind of a file by its name; None if it is not read."""
    lower = name.lower()
    return next((kind for kind, names in _KINDS.items() if names.fullmatch(lower)), None)


def find_sources(location: Location) -> Sources:
    """Return the files of a folder and of all folders in it, or the single file.

    Names that begin with a dot or an underscore are left out, as other readers of such folders do.

    Raises:
        ScoreError: there is no such folder or file, or nothing in it that could be scored.
    """
    folder, infos = _list(location)
    found, ignored = [], []
    for relative, info in infos:
        kind = kind_of(relative)
        if kind is None:
            ignored.append(relative)
        else:
            found.append((relative, kind, info))
    if not found:
        there = f"{len(ignored)} others, such as {ignored[0]!r}" if ignored else "none at all"
        raise ScoreError(f"{location.name}: {EXPECTED}; found {there}")
    files = [
        SourceFile(number, relative, kind, info.size or 0)
        for number, (relative, kind, info) in enumerate(found)
    ]
    return Sources(
        folder, files, ignored, _digest([(relative, info) for relative, _, info in found])
    )


def _list(location: Location) -> tuple[Location, list[tuple[str, FileInfo]]]:
    try:
        top = location.filesystem.get_file_info(location.path)
        if top.type == FileType.NotFound:
            raise ScoreError(f"{location.name}: there is no such folder or file")
        if top.type == FileType.File:
            folder = Location(location.filesystem, dirname(location.path), location.name)
            return folder, [(top.base_name, top)]
        infos = location.filesystem.get_file_info(FileSelector(location.path, recursive=True))
    except OSError as error:
        raise ScoreError(f"{location.name}: can't be read: {error}") from error
    start = len(location.path.rstrip("/")) + 1
    files = [(info.path[start:], info) for info in infos if info.type == FileType.File]
    shown = [one for one in files if not any(part[0] in "._" for part in one[0].split("/"))]
    return location, sorted(shown, key=lambda one: one[0])


def _digest(files: Sequence[tuple[str, FileInfo]]) -> str:
    text = "\n".join(f"{name}\t{info.size}\t{info.mtime_ns}" for name, info in files)
    return hashlib.sha256(text.encode()).hexdigest()
