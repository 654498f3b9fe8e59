"""Arrays in files: NPY of NumPy and IDX of MNIST, also gzipped."""

import gzip
import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import closing
from math import prod
from typing import Any, NamedTuple

import numpy as np

from deploy.ray.score.chunks import Chunk, part_name
from deploy.ray.score.readers.pieces import READ_BYTES, Piece, Reading, bad_chunk, bad_piece
from deploy.ray.score.sources import SourceFile

HEADER_BYTES = 1 << 16  # more than any header of an array of numbers has
_NPY_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
# The types of IDX by their code; the values are big-endian.
_IDX_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
GZIP_DAMAGE = (EOFError, zlib.error, gzip.BadGzipFile)


class Header(NamedTuple):
    """What a file says of its array."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int  # bytes before the data
    is_fortran: bool = False

    @property
    def images(self) -> int:
        """How many images there are."""
        return self.shape[0] if len(self.shape) == 3 else 1

    @property
    def image_bytes(self) -> int:
        """The bytes of an image."""
        return prod(self.shape[-2:]) * self.dtype.itemsize


def plan(file: SourceFile, reading: Reading) -> list[Piece]:
    """Return the pieces of a file: one for each chunk, or of a gzipped one a single one.

    Raises:
        OSError: the file can't be read.
    """
    header = _header(file, reading)
    if isinstance(header, str):
        return [bad_piece(file, header, is_whole=True)]
    if reason := _wrong(header, reading):
        return [bad_piece(file, reason, rows=max(1, header.images), is_whole=True)]
    if _is_gzipped(file):
        return [Piece((file,), 0, header.images)]
    size = file.size_bytes - header.offset
    there, step = min(header.images, size // header.image_bytes), reading.chunk_images
    pieces = [Piece((file,), at, min(at + step, there)) for at in range(0, there, step)]
    if size != header.images * header.image_bytes:
        reason = reading.checker.wrong_size(header.shape, header.dtype, size)
        pieces.append(bad_piece(file, reason, there, max(1, header.images - there)))
    return pieces


def read(piece: Piece, reading: Reading) -> Iterator[Chunk]:
    """Yield the chunks of a piece.

    Raises:
        OSError: the file can't be read.
    """
    header = _header(piece.file, reading)
    if isinstance(header, str):
        raise _changed(piece.file)
    if _is_gzipped(piece.file):
        yield from _read_gzipped(piece, reading, header)
        return
    with reading.location.filesystem.open_input_file(reading.path(piece.file)) as stream:
        stream.seek(header.offset + piece.start * header.image_bytes)
        data = stream.read(piece.rows * header.image_bytes)
    if len(data) != piece.rows * header.image_bytes:
        raise _changed(piece.file)
    yield _chunk(piece.file, reading, piece.start, _images(data, header))


def _read_gzipped(piece: Piece, reading: Reading, header: Header) -> Iterator[Chunk]:
    """Yield the chunks from the first row on: there is no other way through such a file."""
    with _unzipped(piece.file, reading) as stream:
        _, damage = _take(stream, header.offset)
        row, rest = 0, b""
        for start in piece.starts(reading.chunk_images):
            count = min(reading.chunk_images, piece.stop - start)
            data, damage = _take(stream, count * header.image_bytes)
            images = _images(data, header)
            rest = data[len(images) * header.image_bytes :]
            row += len(images)
            if len(images) and start not in piece.done:
                yield _chunk(piece.file, reading, start, images)
            if len(images) < count:
                break
        else:
            rest, damage = _take(stream, 1)
            if not rest and not damage:
                return
    if row not in piece.done:
        got = "more" if row == piece.stop and rest else row * header.image_bytes + len(rest)
        reason = reading.checker.wrong_size(header.shape, header.dtype, got)
        if damage:
            reason += f"; the gzip data is damaged: {damage}"
        rows = max(1, piece.stop - row)
        yield bad_chunk(piece.file, reason, row, rows, is_whole=False)


def _chunk(file: SourceFile, reading: Reading, start: int, images: np.ndarray) -> Chunk:
    rows = range(start, start + len(images))
    part = part_name(file.number, start)
    return reading.checker.chunk(part, images, [file.path] * len(images), rows)


def _images(data: bytes, header: Header) -> np.ndarray:
    """Return the whole images of some bytes."""
    size = prod(header.shape[-2:])
    count = len(data) // header.image_bytes
    return np.frombuffer(data, header.dtype, count * size).reshape(-1, *header.shape[-2:])


def _header(file: SourceFile, reading: Reading) -> Header | str:
    """Return the header of a file, or why it is none."""
    if _is_gzipped(file):
        with _unzipped(file, reading) as stream:
            head, damage = _take(stream, HEADER_BYTES)
        if damage and not head:
            return f"can't be read as gzip: {damage}"
    else:
        with reading.location.filesystem.open_input_file(reading.path(file)) as stream:
            head = stream.read(HEADER_BYTES)
    try:
        return _npy_header(head) if file.kind == "npy" else _idx_header(head)
    except Exception as error:  # noqa: BLE001 (damaged bytes make NumPy raise anything)
        return f"can't be read as {file.kind.upper()}: {' '.join(str(error).split())}"


def _npy_header(head: bytes) -> Header:
    stream = io.BytesIO(head)
    version = np.lib.format.read_magic(stream)
    if version not in _NPY_HEADERS:
        raise ValueError(f"version {version} of the format is of no array of numbers")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of headers that Python 2 wrote
        shape, is_fortran, dtype = _NPY_HEADERS[version](stream)
    if min(shape, default=0) < 0:
        raise ValueError(f"expected a shape, got {shape}")
    return Header(shape, dtype, stream.tell(), is_fortran and len(shape) > 1)


def _idx_header(head: bytes) -> Header:
    if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in _IDX_TYPES:
        raise ValueError(f"expected two zero bytes and the code of a type, got {head[:3].hex()}")
    dimensions = head[3]
    shape = struct.unpack_from(f">{dimensions}I", head, 4)
    return Header(shape, np.dtype(_IDX_TYPES[head[2]]), 4 + 4 * dimensions)


def _wrong(header: Header, reading: Reading) -> str:
    """Return what is wrong with an array by its header."""
    if reason := reading.checker.wrong_array(header.shape, header.dtype):
        return reason
    if header.is_fortran:
        return (
            "data: expected the images one after the other, got an array in Fortran order; save "
            "what numpy.ascontiguousarray makes of it"
        )
    return ""


def _changed(file: SourceFile) -> OSError:
    return OSError(f"{file.path} changed while it was scored")


def _is_gzipped(file: SourceFile) -> bool:
    return file.path.lower().endswith(".gz")


def _unzipped(file: SourceFile, reading: Reading) -> "closing[gzip.GzipFile]":
    stream = reading.location.filesystem.open_input_stream(
        reading.path(file), compression=None, buffer_size=READ_BYTES
    )
    return closing(gzip.GzipFile(fileobj=stream))


def _take(stream: gzip.GzipFile, count: int) -> tuple[bytes, str]:
    """Return as many bytes, or fewer at the end; and what is damaged, "" if nothing is."""
    taken = bytearray()
    try:
        while len(taken) < count and (more := stream.read1(count - len(taken))):
            taken += more
    except GZIP_DAMAGE as error:  # what came before it is right
        return bytes(taken), str(error) or type(error).__name__
    return bytes(taken), ""
