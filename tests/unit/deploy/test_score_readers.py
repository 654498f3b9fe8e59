"""The readers of batch scoring: every kind of file comes back as NumPy has it, broken or not."""

import gzip
import io
import struct
import uuid
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings

from deploy.ray.score.chunks import BadRow, Chunk
from deploy.ray.score.locations import Location, open_location
from deploy.ray.score.readers.dispatch import Plan, done_rows, plan, read
from deploy.ray.score.readers.pieces import Reading
from deploy.ray.score.sources import find_sources, kind_of
from export.bundle import open_bundle
from tests.support.bundles import MODELS_DIR, REPOSITORY

FEW = settings(max_examples=40)  # each writes and reads several files
CHUNK = 5
MANIFEST = open_bundle(MODELS_DIR / "mnist" / "1").manifest
# Of a seed: hypothesis itself would take long to make, and to print, so many values.
LEVELS = st.builds(
    lambda count, seed: np.random.default_rng(seed).integers(0, 256, (count, 28, 28), np.uint8),
    st.integers(1, 17),
    st.integers(0, 99),
)
FLOATS = st.tuples(LEVELS, st.sampled_from(["<f4", "<f8", ">f4", "<f2"])).map(
    lambda drawn: (drawn[0] / 255).astype(drawn[1])
)
IMAGES = LEVELS | FLOATS


def npy_bytes(images: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, images)
    return stream.getvalue()


def idx_bytes(images: np.ndarray) -> bytes:
    """Return IDX as its description has it: big-endian, with the code of the type."""
    codes = {"u1": 0x08, "f4": 0x0D, "f8": 0x0E}
    code = codes[images.dtype.str[1:]]
    header = bytes([0, 0, code, images.ndim]) + struct.pack(f">{images.ndim}I", *images.shape)
    return header + images.astype(images.dtype.newbyteorder(">")).tobytes()


def parquet_bytes(column: pa.Array, row_group: int = 100) -> bytes:
    stream = io.BytesIO()
    pq.write_table(pa.table({"image": column}), stream, row_group_size=row_group)
    return stream.getvalue()


def memory(**files: bytes) -> Location:
    """Return a folder in memory with some files; a double underscore stands for a dot."""
    folder = f"/{uuid.uuid4()}"
    for name, content in files.items():
        fsspec.filesystem("memory").pipe(f"{folder}/{name.replace('__', '.')}", content)
    return open_location(f"memory:/{folder}")


def planned(location: Location, done: tuple[str, ...] = ()) -> tuple[Plan, Reading]:
    sources = find_sources(location)
    reading = Reading(sources.folder, MANIFEST, "image", CHUNK)
    return plan(sources.files, reading, done_rows(done)), reading


def chunks_of(location: Location, done: tuple[str, ...] = ()) -> list[Chunk]:
    """Read all that is not done; each chunk has a name of its own."""
    found, reading = planned(location, done)
    assert found.failures == []
    chunks = [chunk for piece in found.pieces for chunk in read(piece, reading)]
    names = [chunk.part for chunk in chunks]
    assert len(set(names)) == len(names)
    assert not set(names) & set(done)
    return chunks


def images_of(chunks: list[Chunk]) -> np.ndarray:
    return np.concatenate([chunk.images for chunk in chunks if chunk.images is not None])


def bad_of(chunks: list[Chunk]) -> list[BadRow]:
    return [bad for chunk in chunks for bad in chunk.bad]


def assert_same(chunks: list[Chunk], images: np.ndarray) -> None:
    """Compare with images as the client sends them, and check where each comes from."""
    expected = images if images.dtype == np.uint8 else images.astype(np.float32)
    assert bad_of(chunks) == []
    assert images_of(chunks).dtype == expected.dtype
    np.testing.assert_array_equal(images_of(chunks), expected)
    assert [row for chunk in chunks for row in chunk.rows] == list(range(len(images)))
    assert all(len(chunk.rows) <= CHUNK for chunk in chunks)


@FEW
@given(images=IMAGES)
def test_npy_comes_back(images: np.ndarray) -> None:
    assert_same(chunks_of(memory(a__npy=npy_bytes(images))), images)


@FEW
@given(images=IMAGES.filter(lambda images: images.dtype.itemsize != 2), zipped=st.booleans())
def test_idx_comes_back_gzipped_or_not(images: np.ndarray, *, zipped: bool) -> None:
    content = idx_bytes(images)
    files = {"a__idx__gz": gzip.compress(content, 1)} if zipped else {"a__idx": content}
    assert_same(chunks_of(memory(**files)), images)


@FEW
@given(
    images=IMAGES,
    row_group=st.integers(1, 18),
    form=st.sampled_from(["flat", "nested", "fixed", "tensor"]),
)
def test_parquet_comes_back_in_every_form(images: np.ndarray, row_group: int, form: str) -> None:
    native = images.astype(images.dtype.newbyteorder("="))
    flat = native.reshape(len(images), -1)
    columns = {
        "flat": lambda: pa.array(list(flat)),
        "nested": lambda: pa.array([list(image) for image in native]),
        "fixed": lambda: pa.FixedSizeListArray.from_arrays(pa.array(flat.reshape(-1)), 784),
        "tensor": lambda: pa.FixedShapeTensorArray.from_numpy_ndarray(native),
    }
    assert_same(chunks_of(memory(a__parquet=parquet_bytes(columns[form](), row_group))), images)


def forms_of(images: np.ndarray) -> dict[str, bytes]:
    flat = images.reshape(len(images), -1)
    return {
        "a.npy": npy_bytes(images),
        "a.idx": idx_bytes(images),
        "a.idx.gz": gzip.compress(idx_bytes(images), 1),
        "a.parquet": parquet_bytes(pa.array(list(flat)), 7),
    }


FORMS = tuple(forms_of(np.zeros((1, 28, 28), np.uint8)))


@pytest.mark.parametrize("form", FORMS)
@FEW
@given(images=LEVELS, data=st.data())
def test_a_file_cut_anywhere_accounts_for_each_row(
    form: str, images: np.ndarray, data: st.DataObject
) -> None:
    content = forms_of(images)[form]
    cut = content[: data.draw(st.integers(0, len(content) - 1))]
    chunks = chunks_of(memory(**{form: cut}))
    read_rows, bad = sum(len(chunk.rows) for chunk in chunks), bad_of(chunks)
    assert bad
    if read_rows:
        np.testing.assert_array_equal(images_of(chunks), images[:read_rows])
    if bad[0].row is not None:
        assert read_rows == whole_images(form, cut)
        missing = max(1, len(images) - read_rows)
        assert [(one.row, one.rows) for one in bad] == [(read_rows, missing)]


@pytest.mark.parametrize("form", FORMS)
@FEW
@given(images=LEVELS, data=st.data())
def test_broken_bytes_are_never_a_crash(form: str, images: np.ndarray, data: st.DataObject) -> None:
    content = bytearray(forms_of(images)[form])
    for _ in range(data.draw(st.integers(1, 4))):
        # The ends, where the headers are, more often than the middle.
        near = st.integers(0, min(200, len(content) - 1))
        at = data.draw(near | near.map(lambda place: -1 - place))
        content[at] = data.draw(st.integers(0, 255))
    for chunk in chunks_of(memory(**{form: bytes(content)})):
        assert all(one.reason for one in chunk.bad)
        assert len(chunk.rows) == (0 if chunk.images is None else len(chunk.images))


@pytest.mark.parametrize("form", FORMS)
@FEW
@given(images=LEVELS, data=st.data())
def test_what_is_done_is_left_out(form: str, images: np.ndarray, data: st.DataObject) -> None:
    location = memory(**{form: forms_of(images)[form]})
    every = {chunk.part: chunk for chunk in chunks_of(location)}
    done = data.draw(st.sets(st.sampled_from(sorted(every))))
    left = {chunk.part: chunk for chunk in chunks_of(location, tuple(done))}
    assert left.keys() == every.keys() - done
    for part, chunk in left.items():
        np.testing.assert_array_equal(chunk.images, every[part].images)
        assert list(chunk.rows) == list(every[part].rows)


def whole_images(form: str, cut: bytes) -> int:
    """Return how many images are whole in a file that is cut; of Parquet none can be read."""
    data = zlib.decompressobj(wbits=31).decompress(cut) if form.endswith(".gz") else cut
    return max(0, len(data) - (128 if form == "a.npy" else 16)) // 784


def test_batches_of_any_length_make_the_same_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.random.default_rng(0).integers(0, 256, (17, 28, 28), np.uint8)
    iterate = pq.ParquetFile.iter_batches

    def shorter(file: pq.ParquetFile, size: int, *rest: Any) -> Iterator[pa.RecordBatch]:  # noqa: ANN401 (Arrow's own)
        for batch in iterate(file, size, *rest):
            yield from (batch.slice(0, 2), batch.slice(2, 1), batch.slice(3))

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", shorter)
    chunks = chunks_of(memory(**parquet_file(images)))
    assert_same(chunks, images)
    assert [len(chunk.rows) for chunk in chunks] == [5, 5, 5, 2]


VALUES = st.floats(width=32, allow_subnormal=False) | st.sampled_from(
    [-0.0, 1.0000001, 255.0, -1e-9]
)


@FEW
@given(row=st.integers(0, 6), drawn=VALUES)
def test_a_wrong_value_makes_one_bad_row(row: int, drawn: float) -> None:
    images, value = np.full((7, 28, 28), 0.5, np.float32), np.float32(drawn)
    images[row, 3, 4] = value
    for files in ({"a__npy": npy_bytes(images)}, parquet_file(images)):
        chunks = chunks_of(memory(**files))
        is_good = 0 <= value <= 1
        rows = [each for chunk in chunks for each in chunk.rows]
        assert rows == [each for each in range(7) if is_good or each != row]
        assert [one.row for one in bad_of(chunks)] == ([] if is_good else [row])


def parquet_file(images: np.ndarray) -> dict[str, bytes]:
    return {"a__parquet": parquet_bytes(pa.array(list(images.reshape(len(images), -1))))}


ROW = [0.5] * 784


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (None, "expected an image, got null"),
        (ROW[1:], "shape: expected [28, 28], got [783]"),
        ([], "shape: expected [28, 28], got [0]"),
        ([None, *ROW[1:]], "data: expected finite values, got 1 NaN and 0 infinite"),
        ([2.0, *ROW[1:]], "data: expected values from 0 to 1, got 0.5 to 2"),
        ([9.0, *ROW[1:]], "; send UINT8 or divide by 255"),
        ([float("inf"), *ROW[1:]], "got 0 NaN and 1 infinite, the first at element 0"),
    ],
)
def test_a_bad_row_of_parquet_has_its_reason(row: list[float] | None, reason: str) -> None:
    rows = [ROW, ROW, row, ROW]
    chunks = chunks_of(memory(a__parquet=parquet_bytes(pa.array(rows))))
    (bad,) = bad_of(chunks)
    assert (bad.source, bad.row, bad.rows) == ("a.parquet", 2, 1)
    assert reason in bad.reason
    assert [each for chunk in chunks for each in chunk.rows] == [0, 1, 3]


ZEROS = np.zeros((3, 28, 28), np.uint8)


@pytest.mark.parametrize(
    ("name", "content", "reason", "rows"),
    [
        ("a.npy", npy_bytes(ZEROS.astype(int)), "dtype: expected FLOAT32 or UINT8, got INT64", 3),
        ("a.npy", npy_bytes(ZEROS.reshape(3, 784)), "the model flattens them itself", 1),
        ("a.npy", npy_bytes(np.zeros((3, 32, 32), np.uint8)), "[N, 28, 28], got [3, 32, 32]", 3),
        ("a.npy", npy_bytes(np.asfortranarray(ZEROS)), "numpy.ascontiguousarray", 3),
        ("a.npy", b"no array", "can't be read as NPY", 1),
        ("a.npy", b"", "can't be read as NPY", 1),
        ("a.idx", b"\0\0\x08", "can't be read as IDX", 1),
        ("a.idx.gz", b"no gzip", "can't be read as gzip: Not a gzipped file", 1),
        ("a.parquet", b"PAR1", "can't be read as Parquet", 1),
        ("a.parquet", parquet_bytes(pa.array([1, 2])), "expected lists of FLOAT32 or UINT8", 2),
        ("a.png", b"no picture", "can't be read as a picture", 1),
    ],
)
def test_a_file_that_is_wrong_as_a_whole(name: str, content: bytes, reason: str, rows: int) -> None:
    (bad,) = bad_of(chunks_of(memory(**{name: content})))
    assert reason in bad.reason
    assert (bad.row, bad.rows) == (0 if name == "a.png" else None, rows)


def test_a_file_with_more_than_its_header_says() -> None:
    for name, content in forms_of(ZEROS).items():
        if name != "a.parquet":
            raw = gzip.decompress(content) if name.endswith("gz") else content
            longer = gzip.compress(raw + b"x") if name.endswith("gz") else raw + b"x"
            chunks = chunks_of(memory(**{name: longer}))
            (bad,) = bad_of(chunks)
            assert (bad.row, bad.rows) == (3, 1)
            assert "data: expected 2352 bytes for UINT8 of shape [3, 28, 28], got" in bad.reason
            np.testing.assert_array_equal(images_of(chunks), ZEROS)


def test_a_column_that_is_not_there_names_those_that_are() -> None:
    table = io.BytesIO()
    pq.write_table(pa.table({"pixels": [ROW]}), table)
    (bad,) = bad_of(chunks_of(memory(a__parquet=table.getvalue())))
    assert bad.reason == "column: expected one named 'image' (--column), got 'pixels'"


def test_a_file_that_can_not_be_read_is_tried_again(tmp_path: Path) -> None:
    for name, content in forms_of(ZEROS).items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "a.png").write_bytes((REPOSITORY / "docs/digit.png").read_bytes())
    found, reading = planned(open_location(tmp_path.as_uri()))
    for path in tmp_path.iterdir():
        path.unlink()
    chunks = [chunk for piece in found.pieces for chunk in read(piece, reading)]
    assert len(chunks) == 5
    assert all(chunk.failure and chunk.images is None and not chunk.bad for chunk in chunks)


def test_pictures_are_read_as_the_client_does() -> None:
    from forward_client.pictures import load_images  # noqa: PLC0415 (an extra)

    picture = REPOSITORY / "docs/digit.png"
    for location in (memory(a__png=picture.read_bytes()), open_location(str(picture))):
        (chunk,) = chunks_of(location)
        assert chunk.images is not None
        np.testing.assert_array_equal(chunk.images, load_images(picture))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("t10k-images-idx3-ubyte.gz", "idx"),
        ("t10k-images.idx3-ubyte", "idx"),
        ("t10k-labels-idx1-ubyte.gz", None),
        ("a/b.PNG", "picture"),
        ("a.jpeg", "picture"),
        ("a.PQ", "parquet"),
        ("a.npz", None),
        ("a.npy.gz", None),
        ("parquet", None),
    ],
)
def test_kinds_by_name(name: str, kind: str | None) -> None:
    assert kind_of(name) == kind
