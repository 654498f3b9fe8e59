"""Pictures of any kind become images as MNIST has them."""

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from export.runtimes import Runner
from forward_client.messages import tensor_of
from forward_client.pictures import PictureError, load_images, normalise, read_images
from training.data import Data


def test_an_mnist_image_comes_back_unchanged_or_inverted(mnist: Data) -> None:
    for image in mnist.test.images[:500].numpy():
        np.testing.assert_array_equal(normalise(image[..., None] / 255), image)
        np.testing.assert_array_equal(normalise(1 - image[..., None] / 255), image)


def test_mnist_files_are_sent_to_the_bit(mnist: Data, tmp_path: Path) -> None:
    images = mnist.test.images[:10_000:5].numpy()
    np.save(tmp_path / "all.npy", images)
    assert tensor_of(load_images(tmp_path / "all.npy")).data == images.tobytes()
    for image in images[::4]:
        Image.fromarray(image).save(tmp_path / "one.png")
        read = read_images(tmp_path / "one.png")
        assert tensor_of(read.pixels).data == image.tobytes()
        assert read.warnings == ()


@pytest.mark.parametrize("paper", ["white", "ivory", "black"])
def test_large_coloured_digits_off_centre_are_read(
    mnist: Data, eager: Runner, tmp_path: Path, paper: str
) -> None:
    count, wrong = 60, 0
    ink = Image.new("RGB", (210, 210), "gold" if paper == "black" else "navy")
    for index in range(count):
        digit = Image.fromarray(mnist.test.images[index].numpy()).resize((210, 210))
        sheet = Image.new("RGB", (400, 300), paper)
        sheet.paste(ink, (150, 30), mask=digit)
        sheet.save(tmp_path / "digit.png")
        logits = eager.predict(load_images(tmp_path / "digit.png") / np.float32(255))
        wrong += int(logits.argmax() != mnist.test.labels[index])
    assert wrong <= 1  # the model itself errs on about 1% of them


@given(
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    seed=st.integers(0, 2**32 - 1),
    share=st.sampled_from([0.001, 0.01, 0.15, 0.6]),
    dark_ink=st.booleans(),
)
def test_any_picture_is_centred_by_mass_or_refused(
    height: int, width: int, seed: int, share: float, dark_ink: bool
) -> None:
    generator = np.random.default_rng(seed)
    gray = np.where(generator.random((height, width)) < share, generator.random((height, width)), 0)
    try:
        image = normalise((1 - gray if dark_ink else gray)[..., None])
    except PictureError as error:
        said = str(error)
    else:
        said = ""
    if said:
        assert said.startswith("no ink found")
        return
    assert image.dtype == np.uint8
    assert image.shape == (28, 28)
    assert image.max() > 0
    weights = image / image.sum()
    for axis in (1, 0):
        centre = float(weights.sum(axis=axis) @ np.arange(28))
        spread = np.flatnonzero(image.any(axis=axis))
        touches = spread[0] == 0 or spread[-1] == 27
        assert touches or abs(centre - 13.5) <= 1.5, axis


def test_the_longer_side_of_ink_becomes_20_pixels() -> None:
    gray = np.zeros((200, 300))
    gray[50:150, 200:230] = 1  # 100 x 30
    image = normalise(gray[..., None])
    rows, columns = (np.flatnonzero(image.any(axis=axis)) for axis in (1, 0))
    assert rows[-1] - rows[0] + 1 == 20
    assert columns[-1] - columns[0] + 1 == 6


def save(tmp_path: Path, picture: Image.Image, name: str = "picture.png") -> Path:
    picture.save(tmp_path / name)
    return tmp_path / name


def test_every_mode_of_picture_is_read(tmp_path: Path) -> None:
    gray = np.zeros((60, 60), np.uint8)
    gray[20:40, 25:35] = 255
    expected = load_images(save(tmp_path, Image.fromarray(gray)))
    transparent = Image.new("RGBA", (60, 60), (0, 0, 0, 0))  # black ink on nothing
    transparent.paste((0, 0, 0, 255), (25, 20, 35, 40))
    light = Image.new("RGBA", (60, 60), (255, 255, 255, 0))  # white ink on nothing
    light.paste((255, 255, 255, 255), (25, 20, 35, 40))
    blue_on_red = Image.new("RGB", (60, 60), (255, 0, 0))  # of one brightness, nearly
    blue_on_red.paste((0, 70, 255), (25, 20, 35, 40))
    pictures = {
        "light.png": light,
        "colors.png": blue_on_red,
        "float.tiff": Image.fromarray(gray.astype(np.float32) * 3),
        "integer.tiff": Image.fromarray(gray.astype(np.int32)),
        "rgb.png": Image.fromarray(gray).convert("RGB"),
        "palette.png": Image.fromarray(gray).convert("P"),
        "bilevel.png": Image.fromarray(gray).convert("1"),
        "deep.png": Image.fromarray(gray.astype(np.uint16) * 257),
        "transparent.png": transparent,
        "inverted.png": Image.fromarray(255 - gray),
        "picture.bmp": Image.fromarray(gray),
    }
    for name, picture in pictures.items():
        np.testing.assert_array_equal(load_images(save(tmp_path, picture, name)), expected)


@pytest.mark.parametrize(
    ("array", "shape"),
    [
        (np.zeros((28, 28), np.float32), (1, 28, 28)),
        (np.zeros((5, 28, 28), np.uint8), (5, 28, 28)),
        (np.eye(50, dtype=np.float64), (1, 28, 28)),
        (np.eye(50, dtype=np.uint8) * 200, (1, 28, 28)),
    ],
)
def test_numpy_files_are_read(tmp_path: Path, array: np.ndarray, shape: tuple[int, ...]) -> None:
    np.save(tmp_path / "array.npy", array)
    images = load_images(tmp_path / "array.npy")
    assert images.shape == shape
    if array.shape[-2:] == (28, 28):
        np.testing.assert_array_equal(images, array.reshape(shape))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((5, 5, 5)), "expected an array"),
        (np.zeros((0, 28, 28)), "empty"),
        (np.zeros((1, 784)), "looks like flattened images; reshape"),
        (np.zeros((28, 28), np.int64), "expected uint8 or floating values in 0..1, got int64"),
        (np.full((40, 40), 255.0), "from 255.0 to 255.0"),
        (np.full((40, 40), np.nan), "from nan"),
        (np.zeros((40, 40), np.int64), "got int64"),
        (np.zeros((40, 40)), "no ink found"),
    ],
)
def test_arrays_that_are_no_picture_are_refused(
    tmp_path: Path, array: np.ndarray, message: str
) -> None:
    np.save(tmp_path / "array.npy", array)
    with pytest.raises(PictureError, match=message) as refused:
        load_images(tmp_path / "array.npy")
    assert "array.npy" in str(refused.value)


@pytest.mark.parametrize("name", ["clear.png", "nan.tiff"])
def test_pictures_that_show_nothing_are_refused(tmp_path: Path, name: str) -> None:
    clear = Image.new("RGBA", (40, 40), (0, 0, 0, 0))
    nothing = Image.fromarray(np.full((40, 40), np.nan, np.float32))
    path = save(tmp_path, clear if name == "clear.png" else nothing, name)
    with pytest.raises(PictureError, match="no ink found"):
        load_images(path)


def test_files_that_are_no_picture_are_refused(tmp_path: Path) -> None:
    for name, content in (("text.png", b"no picture"), ("array.npy", b"no array")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(PictureError, match=f"{name}: can't be read"):
            load_images(tmp_path / name)
    with pytest.raises(PictureError, match="can't be read"):
        load_images(tmp_path / "nowhere.png")
    buffer = io.BytesIO()
    Image.fromarray(np.eye(60, dtype=np.uint8) * 255).convert("RGBA").save(buffer, "PNG")
    png = bytearray(buffer.getvalue())
    # A data chunk that says it is 12 bytes shorter than it is: the next one can't be found.
    start = png.index(b"IDAT")
    length = int.from_bytes(png[start - 4 : start], "big")
    png[start - 4 : start] = (length - 12).to_bytes(4, "big")
    (tmp_path / "damaged.png").write_bytes(png)
    with pytest.raises(PictureError, match="can't be read"):
        load_images(tmp_path / "damaged.png")
    (tmp_path / "array.npy").write_bytes(b"")
    with pytest.raises(PictureError, match="can't be read"):
        load_images(tmp_path / "array.npy")
    with (tmp_path / "archive.npy").open("wb") as archive:
        np.savez(archive, one=np.zeros(3))
    with pytest.raises(PictureError, match="got an archive"):
        load_images(tmp_path / "archive.npy")
    Image.new("1", (10_000, 10_000)).save(tmp_path / "huge.png")
    with pytest.raises(PictureError, match="exceeds limit"):
        load_images(tmp_path / "huge.png")
    pickled = np.array([object()])
    np.save(tmp_path / "pickled.npy", pickled, allow_pickle=True)
    with pytest.raises(PictureError, match="can't be read"):
        load_images(tmp_path / "pickled.npy")
