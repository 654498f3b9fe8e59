"""Parquet files whose column has an image in each row."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from deploy.ray.score.chunks import BadRow, Chunk, part_name
from deploy.ray.score.readers.pieces import READ_BYTES, Piece, Reading, bad_chunk, bad_piece
from deploy.ray.score.sources import SourceFile

Array = Any  # pyarrow has no types
NO_IMAGE = "expected an image, got null"


def plan(file: SourceFile, reading: Reading) -> list[Piece]:
    """Return the pieces of a file: its row groups.

    Raises:
        OSError: the file can't be read.
    """
    try:
        with _open(file, reading) as opened:
            metadata, schema = opened.metadata, opened.schema_arrow
    except Exception as error:  # noqa: BLE001 (damaged bytes make Arrow raise anything)
        reading.check_readable(file)
        return [bad_piece(file, _unreadable(error), is_whole=True)]
    if reason := _wrong(schema, reading):
        return [bad_piece(file, reason, rows=max(1, metadata.num_rows), is_whole=True)]
    pieces, start = [], 0
    for group in range(metadata.num_row_groups):
        rows = metadata.row_group(group).num_rows
        if rows:
            pieces.append(Piece((file,), start, start + rows, group=group))
        start += rows
    return pieces


def read(piece: Piece, reading: Reading) -> Iterator[Chunk]:
    """Yield the chunks of a row group.

    Raises:
        OSError: the file can't be read.
    """
    file, waiting, start = piece.file, [], piece.start
    size = reading.chunk_images
    try:
        with _open(file, reading) as opened:
            for batch in opened.iter_batches(size, [piece.group], [reading.column]):
                # A batch may end where a page does.
                waiting.append(batch.column(0))
                while sum(map(len, waiting)) >= size:
                    together = _joined(waiting)
                    yield from _chunks(piece, reading, start, together[:size])
                    waiting, start = [together[size:]], start + size
    except Exception as error:  # noqa: BLE001 (damaged bytes make Arrow raise anything)
        reading.check_readable(file)
        reason = _unreadable(error)
    else:
        reason = ""
    together = _joined(waiting)
    yield from _chunks(piece, reading, start, together)
    end = start + len(together)
    if end < piece.stop and end not in piece.done:
        reason = reason or "the row group has fewer rows than the file's footer says"
        yield bad_chunk(file, reason, end, piece.stop - end, is_whole=False)


def _open(file: SourceFile, reading: Reading) -> pq.ParquetFile:
    # Buffered: else the whole column of a row group is read at once.
    source = reading.location.filesystem.open_input_file(reading.path(file))
    return pq.ParquetFile(source, buffer_size=READ_BYTES, pre_buffer=False)


def _unreadable(error: Exception) -> str:
    return f"can't be read as Parquet: {' '.join(str(error).split())}"


def _joined(arrays: list[Array]) -> Array:
    return pa.concat_arrays(arrays) if arrays else pa.nulls(0)


def _wrong(schema: pa.Schema, reading: Reading) -> str:
    """Return what is wrong with the column."""
    if schema.names.count(reading.column) != 1:
        there = ", ".join(map(repr, schema.names[:10]))
        return f"column: expected one named {reading.column!r} (--column), got {there}"
    leaf = whole = schema.field(reading.column).type
    while (inner := _inner(leaf)) is not None:
        leaf = inner
    if leaf is whole or not (pa.types.is_uint8(leaf) or pa.types.is_floating(leaf)):
        return f"dtype: expected lists of FLOAT32 or UINT8, got {whole}"
    order = getattr(whole, "permutation", None)  # of the axes of a tensor
    if order is not None and list(order) != sorted(order):
        return f"data: expected the rows of each image one after the other, got {whole}"
    return ""


def _inner(type_: pa.DataType) -> pa.DataType | None:
    """Return the type within a list or an extension, None if it is neither."""
    if isinstance(type_, pa.BaseExtensionType):  # say, a tensor
        return type_.storage_type
    is_list = pa.types.is_list(type_) or pa.types.is_large_list(type_)
    return type_.value_type if is_list or pa.types.is_fixed_size_list(type_) else None


def _chunks(piece: Piece, reading: Reading, start: int, column: Array) -> Iterator[Chunk]:
    if len(column) == 0 or start in piece.done:
        return
    part, source = part_name(piece.file.number, start), piece.file.path
    images = _all_alike(column, reading.checker.shape)
    bad: list[BadRow] = []
    rows = list(range(start, start + len(column)))
    if images is None:
        images, kept, bad = _one_by_one(column, reading, source, start)
        rows = [rows[at] for at in kept]
    yield reading.checker.chunk(part, images, [source] * len(rows), rows, bad)


def _all_alike(column: Array, shape: tuple[int, ...]) -> np.ndarray | None:
    """Return the images if each row has one of the shape, flat or not; None otherwise."""
    values = _storage(column)
    lengths = []
    while _inner(values.type) is not None:
        sizes = pc.list_value_length(values)
        least = pc.min_max(sizes).as_py()
        if values.null_count or least["min"] != least["max"]:
            return None
        lengths.append(least["min"])
        values = _storage(values.flatten())
    if values.null_count or tuple(lengths) not in (shape, (int(np.prod(shape)),)):
        return None
    images: np.ndarray = values.to_numpy(zero_copy_only=False).reshape(-1, *shape)
    return images


def _storage(array: Array) -> Array:
    return array.storage if isinstance(array.type, pa.BaseExtensionType) else array


def _one_by_one(
    column: Array, reading: Reading, source: str, start: int
) -> tuple[np.ndarray, list[int], list[BadRow]]:
    """Return the images that have the right shape, their places, and the other rows."""
    storage, shape = _storage(column), reading.checker.shape
    leaf = storage.type
    while (inner := _inner(leaf)) is not None:
        leaf = inner
    dtype = np.dtype(np.uint8 if pa.types.is_uint8(leaf) else np.float32)
    images, kept, bad = [], [], []
    for at in range(len(storage)):
        image = _image(storage[at].as_py(), dtype)
        if not isinstance(image, str) and image.size == np.prod(shape) and image.ndim == 1:
            image = image.reshape(shape)
        reason = image if isinstance(image, str) else reading.checker.wrong_image(image)
        if reason:
            bad.append(BadRow(source, start + at, reason))
        else:
            images.append(image)
            kept.append(at)
    return np.array(images, dtype).reshape(-1, *shape), kept, bad


def _image(values: object, dtype: np.dtype[Any]) -> np.ndarray | str:
    """Return the array of a row's lists, or why there is none."""
    if values is None:
        return NO_IMAGE
    try:
        with np.errstate(over="ignore"):
            return np.array(values, dtype)
    except TypeError:  # None among the values
        return "data: expected values, got null"
    except ValueError:
        return "shape: expected rows of one length, got several"
