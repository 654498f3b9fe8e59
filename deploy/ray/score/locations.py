"""Places of files: folders, and URIs of pyarrow or fsspec."""

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import fsspec
import pyarrow as pa
from pyarrow.fs import (
    FileSelector,
    FileSystem,
    FileType,
    FSSpecHandler,
    LocalFileSystem,
    PyFileSystem,
)

from deploy.ray.score.errors import ScoreError

EXPECTED = "expected a folder, or a URI such as file:///data or s3://bucket/folder"


@dataclass(frozen=True)
class Location:
    """A folder or file of a file system; `name` is what the user calls it."""

    filesystem: FileSystem
    path: str
    name: str

    def inside(self, relative: str) -> str:
        """Return the path of a file in the folder; "" is the folder itself, or the file."""
        return f"{self.path.rstrip('/')}/{relative}" if relative else self.path

    def contains(self, other: "Location") -> bool:
        """Tell if another location is this one or is in it."""
        mine, others = f"{self.path.rstrip('/')}/", f"{other.path.rstrip('/')}/"
        return self.filesystem == other.filesystem and others.startswith(mine)

    def exists(self, relative: str) -> bool:
        """Tell if there is a file of that name."""
        found = self.filesystem.get_file_info(self.inside(relative))
        return bool(found.type != FileType.NotFound)

    def read(self, relative: str) -> bytes:
        """Return the content of a file."""
        with self.filesystem.open_input_stream(self.inside(relative)) as stream:
            content: bytes = stream.read()
        return content

    def names(self, relative: str) -> list[str]:
        """Return the names of the files in a folder; none if it does not exist."""
        selector = FileSelector(self.inside(relative), allow_not_found=True)
        return sorted(info.base_name for info in self.filesystem.get_file_info(selector))


def open_location(text: str) -> Location:
    """Return the place that a path or a URI names.

    Raises:
        ScoreError: there is nothing that reads such a URI.
    """
    scheme, separator, rest = text.partition("://")
    if not separator:
        return Location(LocalFileSystem(), str(Path(text).resolve()), text)
    if scheme == "file":
        if not rest.startswith("/"):
            raise ScoreError(f"{text}: {EXPECTED}; a file URI has three slashes")
        return Location(LocalFileSystem(), str(Path(unquote(rest)).resolve()), text)
    try:
        filesystem, path = FileSystem.from_uri(text)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as refused:
        return _by_fsspec(text, refused)
    except OSError as error:
        raise ScoreError(f"{text}: can't be opened: {error}") from error
    return Location(filesystem, path, text)


def _by_fsspec(text: str, refused: Exception) -> Location:
    try:
        filesystem, path = fsspec.core.url_to_fs(text)
    except ImportError as error:
        raise ScoreError(f"{text}: {error}") from error
    except ValueError as error:
        raise ScoreError(f"{text}: {EXPECTED}: {refused}; {error}") from error
    return Location(PyFileSystem(FSSpecHandler(filesystem)), path, text)
