"""The folder of the output: what it holds tells what is done.

A part is written under a temporary name and then renamed. That of its bad rows comes first, so that
a part that is there is whole: it is never written again.
"""

import json
import uuid
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow.fs import FileType

from deploy.ray.score.errors import ScoreError
from deploy.ray.score.locations import Location
from deploy.ray.score.scorer import ScoredPart
from deploy.ray.score.tables import SCORING_KEY

DESCRIPTION = "scoring.json"
ROWS, BAD, TEMPORARY = "rows", "bad-rows", "_temporary"
ENDING = ".parquet"
READING_THREADS = 16
WHAT_TO_DO = "give another output folder, or remove this one to score anew"


class Written(NamedTuple):
    """What a part has."""

    name: str
    rows: int
    bad: int
    failure: str = ""


def prepare(output: Location, description: Mapping[str, Any], sha256: str) -> list[Written]:
    """Return what is written already of a scoring; begin it if nothing is.

    Raises:
        ScoreError: the folder has something else.
    """
    try:
        there = output.names("")
        if DESCRIPTION in there:
            _check_same(output, description)
        elif there:
            raise ScoreError(
                f"{output.name}: is not empty and has no {DESCRIPTION}, so it is no output of "
                f"this command (there: {', '.join(there[:5])}); give an empty or a new folder"
            )
        else:
            begin(output, description)
        return _written(output, sha256)
    except OSError as error:
        raise ScoreError(f"{output.name}: can't be used: {error}") from error


def begin(output: Location, description: Mapping[str, Any]) -> None:
    """Create the folders and write what is to be done."""
    for folder in (ROWS, BAD, TEMPORARY):
        output.filesystem.create_dir(output.inside(folder))
    content = f"{json.dumps(description, indent=2)}\n".encode()
    temporary = output.inside(f"{TEMPORARY}/{uuid.uuid4()}")
    with output.filesystem.open_output_stream(temporary) as stream:
        stream.write(content)
    output.filesystem.move(temporary, output.inside(DESCRIPTION))


def clear(output: Location) -> None:
    """Remove what an interrupted run, or this one, left half-written."""
    folder = output.inside(TEMPORARY)
    if output.filesystem.get_file_info(folder).type != FileType.NotFound:
        output.filesystem.delete_dir(folder)


def write(output: Location, part: ScoredPart) -> Written:
    """Write a part; return what it has.

    Raises:
        OSError: it can't be written.
    """
    if part.rows is None:
        return Written(part.name, 0, 0, part.failure)
    bad = 0
    if part.bad is not None:
        _write_table(output, f"{BAD}/{part.name}{ENDING}", part.bad)
        bad = sum(part.bad["rows"].to_pylist())
    _write_table(output, f"{ROWS}/{part.name}{ENDING}", part.rows)
    return Written(part.name, part.rows.num_rows, bad)


def _write_table(output: Location, relative: str, table: pa.Table) -> None:
    folder = output.inside(TEMPORARY)
    temporary = f"{folder}/{uuid.uuid4()}"
    output.filesystem.create_dir(folder)
    pq.write_table(table, temporary, filesystem=output.filesystem)
    output.filesystem.move(temporary, output.inside(relative))


def _check_same(output: Location, description: Mapping[str, Any]) -> None:
    """Compare a scoring with the one that the folder was begun with."""
    try:
        begun = json.loads(output.read(DESCRIPTION))
        values = {name: begun.get(name) for name in {*begun, *description}}
    except (ValueError, AttributeError) as error:
        raise ScoreError(f"{output.name}/{DESCRIPTION}: is damaged; {WHAT_TO_DO}") from error
    different = [
        f"{name}: {json.dumps(values[name])} there, {json.dumps(description.get(name))} now"
        for name in sorted(values)
        if values[name] != json.loads(json.dumps(description.get(name)))
    ]
    if different:
        raise ScoreError(
            f"{output.name}: was begun with something else ({'; '.join(different)}); {WHAT_TO_DO}"
        )


def _written(output: Location, sha256: str) -> list[Written]:
    bad = set(output.names(BAD))
    names = [name for name in output.names(ROWS) if name.endswith(ENDING)]

    def look(name: str) -> Written:
        return _look(output, name, sha256, has_bad=name in bad)

    with ThreadPoolExecutor(READING_THREADS) as pool:
        return list(pool.map(look, names))


def _look(output: Location, name: str, sha256: str, *, has_bad: bool) -> Written:
    """Return what a part that is there has."""
    try:
        metadata = pq.read_metadata(output.inside(f"{ROWS}/{name}"), filesystem=output.filesystem)
        if (metadata.metadata or {}).get(SCORING_KEY) != sha256.encode():
            raise ScoreError(
                f"{output.name}/{ROWS}/{name}: is of another scoring; {WHAT_TO_DO}, or this file"
            )
        bad = 0
        if has_bad:
            path = output.inside(f"{BAD}/{name}")
            table = pq.read_table(path, columns=["rows"], filesystem=output.filesystem)
            bad = sum(table["rows"].to_pylist())
    except pa.ArrowInvalid as error:
        raise ScoreError(f"{output.name}: {name} is damaged: {error}; remove it") from error
    return Written(name.removesuffix(ENDING), metadata.num_rows, bad)


def totals(written: Iterable[Written]) -> tuple[int, int]:
    """Return the rows and the bad rows of parts."""
    parts = list(written)
    return sum(part.rows for part in parts), sum(part.bad for part in parts)
