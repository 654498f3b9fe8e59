"""Pieces of the input: what one task reads."""

from collections.abc import Mapping, Set
from dataclasses import dataclass
from functools import cached_property

from deploy.ray.score.chunks import BadRow, Chunk, part_name
from deploy.ray.score.images import ImageChecker
from deploy.ray.score.locations import Location
from deploy.ray.score.sources import SourceFile
from export.bundle.manifest import Manifest

READ_BYTES = 1 << 20
DoneRows = Mapping[int, Set[int]]  # by the number of the file: the first rows of what is done


@dataclass(frozen=True)
class Reading:
    """What all readers know."""

    location: Location
    manifest: Manifest
    column: str
    chunk_images: int

    @cached_property
    def checker(self) -> ImageChecker:
        """What checks the images."""
        return ImageChecker(self.manifest)

    def path(self, file: SourceFile) -> str:
        """Return the path of a file in the file system."""
        return self.location.inside(file.path)

    def check_readable(self, file: SourceFile) -> None:
        """Read a file to its end: so it is told whether the data is wrong or what it is on.

        Raises:
            OSError: it can't be read.
        """
        with self.location.filesystem.open_input_stream(self.path(file)) as stream:
            while stream.read(READ_BYTES):
                pass


@dataclass(frozen=True)
class Piece:
    """Rows of a file that are read in one go, or several pictures.

    With a `reason` they are bad, and nothing is read: all from `start` on, or with `is_whole` the
    file.
    """

    files: tuple[SourceFile, ...]
    start: int
    stop: int
    done: frozenset[int] = frozenset()  # first rows of the chunks that are written already
    group: int = 0  # the row group of a Parquet file
    reason: str = ""
    is_whole: bool = False

    @property
    def file(self) -> SourceFile:
        """The file, or the first picture."""
        return self.files[0]

    @property
    def rows(self) -> int:
        """How many rows these are."""
        return self.stop - self.start

    def starts(self, chunk_images: int) -> range:
        """Return the first row of each of the chunks; of bad rows there is one."""
        return range(self.start, self.stop, self.rows if self.reason else chunk_images)


def bad_piece(
    file: SourceFile, reason: str, start: int = 0, rows: int = 1, *, is_whole: bool = False
) -> Piece:
    """Return the piece of rows that can't be scored."""
    return Piece((file,), start, start + rows, reason=reason, is_whole=is_whole)


def bad_chunk(file: SourceFile, reason: str, start: int, rows: int, *, is_whole: bool) -> Chunk:
    """Return the chunk of rows that can't be scored."""
    record = BadRow(file.path, None if is_whole else start, reason, rows)
    return Chunk(part_name(file.number, start), bad=(record,))
