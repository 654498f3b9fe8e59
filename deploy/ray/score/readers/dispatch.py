"""Plans the pieces of all files, and reads a piece by the reader of its kind."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import NamedTuple

from deploy.ray.score.chunks import Chunk
from deploy.ray.score.readers import arrays, parquet, pictures
from deploy.ray.score.readers.pieces import DoneRows, Piece, Reading, bad_chunk
from deploy.ray.score.sources import SourceFile

PLANNING_THREADS = 16  # that wait for the headers of files
_READERS = {"npy": arrays, "idx": arrays, "parquet": parquet}


class Plan(NamedTuple):
    """What there is to read."""

    pieces: list[Piece]
    rows: int  # of all pieces, also of those that are done
    failures: list[str]  # files that can't be read now


def plan(files: Sequence[SourceFile], reading: Reading, done: DoneRows) -> Plan:
    """Return the pieces of all files, without the chunks that are done."""
    shown = [file for file in files if file.kind == "picture"]
    others = [file for file in files if file.kind != "picture"]
    pieces, failures = pictures.plan(shown, reading), []
    with ThreadPoolExecutor(PLANNING_THREADS) as pool:
        for planned in pool.map(lambda file: _plan_one(file, reading), others):
            if isinstance(planned, str):
                failures.append(planned)
            else:
                pieces += planned
    pieces.sort(key=lambda piece: (piece.file.number, piece.start))
    rows = sum(piece.rows for piece in pieces)
    return Plan(list(_left(pieces, reading, done)), rows, failures)


def _plan_one(file: SourceFile, reading: Reading) -> list[Piece] | str:
    try:
        return _READERS[file.kind].plan(file, reading)
    except OSError as error:
        return f"{file.path}: {error}"


def _left(pieces: Iterable[Piece], reading: Reading, done: DoneRows) -> Iterator[Piece]:
    """Yield the pieces of which something is not done yet."""
    for piece in pieces:
        rows = done.get(piece.file.number, frozenset())
        if not all(start in rows for start in piece.starts(reading.chunk_images)):
            yield replace(piece, done=frozenset(rows))


def read(piece: Piece, reading: Reading) -> Iterator[Chunk]:
    """Yield the chunks of a piece; if its file can't be read now, one that says so."""
    if piece.reason:
        yield bad_chunk(piece.file, piece.reason, piece.start, piece.rows, is_whole=piece.is_whole)
        return
    reader = pictures if piece.file.kind == "picture" else _READERS[piece.file.kind]
    try:
        yield from reader.read(piece, reading)
    except OSError as error:
        yield Chunk("", failure=f"{piece.file.path}: {error}")


def done_rows(parts: Iterable[str]) -> DoneRows:
    """Return the first rows by file of the names of the parts that are written."""
    rows: dict[int, set[int]] = defaultdict(set)
    for part in parts:
        _, file, row = part.split("-")
        rows[int(file)].add(int(row))
    return rows
