"""Whatever a file has in it, the client reads images or says in one sentence what is wrong."""

import io
import os
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from forward_client.pictures import PictureError, load_images

# Every kind that Pillow writes and reads without a program of another's.
KINDS = {
    "PNG": ("RGBA", {}), "GIF": ("P", {}), "BMP": ("RGB", {}), "DIB": ("RGB", {}),
    "TIFF": ("RGB", {"compression": "tiff_lzw"}), "WEBP": ("RGBA", {}), "ICO": ("RGBA", {}),
    "PPM": ("RGB", {}), "TGA": ("RGBA", {"compression": "tga_rle"}), "JPEG2000": ("RGB", {}),
    "JPEG": ("CMYK", {}), "PCX": ("P", {}), "SGI": ("RGB", {}),
    "MSP": ("1", {}), "XBM": ("1", {}), "DDS": ("RGBA", {}), "ICNS": ("RGBA", {}),
    "SPIDER": ("F", {}), "BLP": ("P", {}), "QOI": ("RGBA", {}), "MPO": ("RGB", {}),
    "AVIF": ("RGB", {}),
}  # fmt: skip
MUTANTS = 20  # of each kind


def encoded(kind: str) -> bytes:
    mode, options = KINDS[kind]
    picture = Image.new("L", (48, 40), 255)
    ImageDraw.Draw(picture).line((15, 8, 30, 32), fill=0, width=4)
    buffer = io.BytesIO()
    picture.convert("RGB").convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def mutant(content: bytes, generator: np.random.Generator) -> bytes:
    """Return the content with some bytes changed, or cut short."""
    changed = bytearray(content)
    reach = len(changed) if generator.random() < 0.5 else min(len(changed), 64)  # often the header
    for at in generator.integers(0, reach, generator.integers(1, 5)):
        changed[at] = generator.integers(0, 256)
    if generator.random() < 0.3:
        del changed[generator.integers(0, len(changed)) :]
    return bytes(changed)


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_picture_is_read_or_refused(kind: str, tmp_path: Path) -> None:
    content = encoded(kind)
    path = tmp_path / "picture"
    path.write_bytes(content)
    assert load_images(path).shape == (1, 28, 28)
    generator = np.random.default_rng(len(content))
    for _ in range(MUTANTS):
        path.write_bytes(mutant(content, generator))
        assert_read_or_refused(path)


def assert_read_or_refused(path: Path) -> None:
    try:
        images = load_images(path)
    except PictureError as error:
        said = str(error)
    else:
        assert images.shape[1:] == (28, 28)
        return
    assert said.startswith(f"{path}: ")
    assert "\n" not in said


def npy(header: str) -> bytes:
    """Return a NumPy file of a header, right or wrong, and 784 bytes of data."""
    text = header.encode("latin-1").ljust(118 - 1) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(784)


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '|u1', 'fortran_order': False, 'shape': (1000000000000, 28, 28), }",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999999999999999, 28, 28), }",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (-1, 28, 28), }",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (28, -28), }",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (28, 29), }",
        "{'descr': '|u1', 'fortran_order': False, 'shape': 784, }",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (28.0, 28), }",
        "{'descr': '|u1', 'fortran_order': 7, 'shape': (28, 28), }",
        "{'descr': '|q9', 'fortran_order': False, 'shape': (28, 28), }",
        "{'descr': [], 'fortran_order': False, 'shape': (28, 28), }",
        "{'descr': [('a', '|u1'), ('a', '|u1')], 'fortran_order': False, 'shape': (28, 28), }",
        "{'descr': '|O', 'fortran_order': False, 'shape': (28, 28), }",
        "{'descr': None, 'fortran_order': False, 'shape': (28, 28), }",
        "{'shape': (28, 28)}",
        "((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((((",
        "-" * 110,
        "{'descr': '|u1' 'fortran_order",
        "\x00\xff'''",
        "",
    ],
)
def test_a_damaged_header_allocates_no_memory(header: str, tmp_path: Path) -> None:
    path = tmp_path / "array.npy"
    path.write_bytes(npy(header))
    tracemalloc.start()
    try:
        with pytest.raises(PictureError, match=r"array\.npy: "):
            load_images(path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_a_header_of_python_2_is_read(tmp_path: Path) -> None:
    (tmp_path / "array.npy").write_bytes(
        npy("{'descr': '|u1', 'fortran_order': False, 'shape': (28L, 28L), }")
    )
    assert load_images(tmp_path / "array.npy").shape == (1, 28, 28)


def test_mutated_arrays_are_read_or_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.eye(40, dtype=np.float32))
    generator = np.random.default_rng(0)
    path = tmp_path / "array.npy"
    for _ in range(300):
        path.write_bytes(mutant(buffer.getvalue(), generator))
        assert_read_or_refused(path)


@pytest.mark.parametrize("shape", [(28, 28), (3, 28, 28), (30, 40)])
@pytest.mark.parametrize(
    "kind",
    ["U1", "S1", "V4", "c8", "?", "i1", "<i4", ">u2", "M8[s]", "m8[D]", [("a", "u1"), ("b", "f4")]],
)
def test_arrays_of_other_types_are_refused_by_name(
    tmp_path: Path, shape: tuple[int, ...], kind: str
) -> None:
    array = np.zeros(shape, np.dtype(kind))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy has its doubts about the metadata of some
        np.save(tmp_path / "array.npy", array)
    with pytest.raises(PictureError, match="expected uint8 or floating values") as refused:
        load_images(tmp_path / "array.npy")
    assert str(array.dtype) in str(refused.value)


@pytest.mark.parametrize("kind", ["<f2", ">f4", "<f8", ">f8", "longdouble", "u1"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_floats_of_any_size_and_order_are_read(tmp_path: Path, kind: str, order: str) -> None:
    values = np.random.default_rng(0).random((2, 28, 28)).astype(np.float16)
    if kind == "u1":
        values = np.rint(values * 255)
    array = np.array(values.astype(kind), order="F" if order == "F" else "C")
    np.save(tmp_path / "array.npy", array)
    np.testing.assert_array_equal(load_images(tmp_path / "array.npy"), values)


def test_values_beyond_float32_are_left_to_the_server(tmp_path: Path) -> None:
    np.save(tmp_path / "array.npy", np.full((28, 28), 1e300))
    assert np.isinf(load_images(tmp_path / "array.npy")).all()


@pytest.mark.parametrize("name", ["thing.png", "thing.npy"])
def test_only_regular_files_are_opened(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / name).mkdir()
    os.mkfifo(tmp_path / name)
    (tmp_path / "zero").mkdir()
    (tmp_path / "zero" / name).symlink_to("/dev/zero")
    for folder, kind in (("folder", "a folder"), (".", "a pipe"), ("zero", "a device")):
        with pytest.raises(PictureError, match="expected a file, got a") as refused:
            load_images(tmp_path / folder / name)
        assert kind in str(refused.value)
    with pytest.raises(PictureError, match="can't be read"):
        load_images(Path("\0" + name))


def test_of_an_animation_the_first_frame_is_read(tmp_path: Path) -> None:
    frames = [Image.open(io.BytesIO(encoded("PNG"))).convert("L"), Image.new("L", (48, 40), 255)]
    frames[0].save(tmp_path / "one.png")
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    expected = load_images(tmp_path / "one.png")
    np.testing.assert_array_equal(load_images(tmp_path / "moving.gif"), expected)
