"""Digits are read in whatever form a picture has them, and what is hard to read is told."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.pictures.forms import FORMS, enlarged, gray
from export.runtimes import Runner
from forward_client.pictures import PictureError, read_images
from forward_client.pictures.components import label
from training.data import Data

HARDEST = "hard shadow over a part"  # the one whose goal is not met; docs/guides/pictures.md
SURE = 0.9999  # of the model, on the digits that the forms are tried with


@pytest.fixture(scope="module")
def digits(mnist: Data, eager: Runner, test_pixels: np.ndarray) -> np.ndarray:
    """One of each digit that the model is sure of: the form alone can make it err, [10, 28, 28]."""
    logits = eager.predict(test_pixels[:1000]).astype(np.float64)
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    sure = (shares / shares.sum(axis=1, keepdims=True)).max(axis=1) > SURE
    labels = mnist.test.labels[:1000].numpy()
    chosen = [np.flatnonzero(sure & (labels == digit))[1] for digit in range(10)]
    return mnist.test.images.numpy()[chosen]


def save(folder: Path, picture: Image.Image, name: str = "picture.png") -> Path:
    picture.save(folder / name)
    return folder / name


def read_in_form(
    form: str, digits: np.ndarray, eager: Runner, folder: Path
) -> tuple[list[int], list[tuple[str, ...]]]:
    """Return what each digit is read as in a form, and what was told of it."""
    read = []
    for number, digit in enumerate(digits):
        saved = FORMS[form](digit, np.random.default_rng(number))
        path = folder / f"{number}.{saved.ending}"
        saved.picture.save(path, **saved.options)
        read.append(read_images(path))
    pixels = np.concatenate([images.pixels for images in read]) / np.float32(255)
    answers: list[int] = eager.predict(pixels).argmax(axis=1).tolist()
    return answers, [images.warnings for images in read]


@pytest.mark.parametrize("form", [form for form in FORMS if form != HARDEST])
def test_ten_clear_digits_are_read_in_every_form(
    digits: np.ndarray, eager: Runner, tmp_path: Path, form: str
) -> None:
    assert read_in_form(form, digits, eager, tmp_path)[0] == list(range(10))


def test_transparent_paper_is_read_like_white_paper(mnist: Data, tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    for index in (1717, 2020, 2222, 7676):  # their soft edges outweigh their ink
        digit = mnist.test.images[index].numpy()
        paper = FORMS["enlarged to 280 pixels, black on white"](digit, chance).picture
        expected = read_images(save(tmp_path, paper)).pixels
        paper.save(tmp_path / "key.png", transparency=255)
        paper.convert("P").save(tmp_path / "key.gif", transparency=255)
        for name in ("key.png", "key.gif"):
            np.testing.assert_array_equal(read_images(tmp_path / name).pixels, expected)


def test_a_misread_hard_shadow_has_a_warning(
    digits: np.ndarray, eager: Runner, tmp_path: Path
) -> None:
    answers, warnings = read_in_form(HARDEST, digits, eager, tmp_path)
    wrong = [digit for digit, answer in enumerate(answers) if answer != digit]
    assert len(wrong) <= 2
    assert all(warnings[digit] for digit in wrong)


def blank(bits: int, light: float, noise: float) -> Image.Image:
    values = light + np.random.default_rng(1).normal(0, noise, (300, 200))
    kind = {8: np.uint8, 16: np.uint16, 32: np.float32}[bits]
    most = 1 if bits == 32 else 2**bits - 1
    return Image.fromarray((np.clip(values, 0, 1) * most).astype(kind))


@pytest.mark.parametrize("bits", [8, 16, 32])
@pytest.mark.parametrize(("light", "noise"), [(0.9, 0.004), (0.9, 0.05), (0.1, 0.03), (0.5, 0.2)])
def test_noisy_blank_paper_shows_no_ink(
    tmp_path: Path, bits: int, light: float, noise: float
) -> None:
    name = "blank.tiff" if bits == 32 else "blank.png"
    with pytest.raises(PictureError, match="no ink found"):
        read_images(save(tmp_path, blank(bits, light, noise), name))


def test_unevenly_lit_blank_paper_shows_no_ink(tmp_path: Path) -> None:
    slope = np.linspace(0.4, 0.9, 300)[None].repeat(200, axis=0)
    with pytest.raises(PictureError, match="no ink found"):
        read_images(save(tmp_path, gray(slope)))


def test_each_difficulty_of_a_picture_has_a_warning(digits: np.ndarray, tmp_path: Path) -> None:
    two = np.concatenate([enlarged(digits[3]), enlarged(digits[5])], axis=1)
    told = {
        "several digits": gray(1 - two),
        "cut off": gray(1 - enlarged(digits[3])[:, 120:]),
        "thin": FORMS["pen of 0.5% of the canvas"](digits[3], np.random.default_rng(1)).picture,
        "noisy": FORMS["noise of 20%"](digits[3], np.random.default_rng(1)).picture,
        "frame": FORMS["frame of 2 pixels, inset"](digits[3], np.random.default_rng(1)).picture,
        "contrast": FORMS["contrast of 15%"](digits[3], np.random.default_rng(1)).picture,
        "specks": FORMS["150 specks"](digits[3], np.random.default_rng(1)).picture,
    }
    for words, picture in told.items():
        assert words in " ".join(read_images(save(tmp_path, picture)).warnings), words
    plain = save(tmp_path, gray(1 - enlarged(digits[3])))
    assert read_images(plain).warnings == ()


def test_parts_of_a_mask_are_those_of_scipy() -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    generator = np.random.default_rng(0)
    for share in (0.02, 0.3, 0.41, 0.6, 1.0):
        for shape in ((1, 1), (1, 50), (50, 1), (40, 70)):
            mask = generator.random(shape) < share
            expected, count = ndimage.label(mask, np.ones((3, 3)))
            parts = label(mask)
            assert len(parts) == count
            pairs = set(zip(parts.labels[mask].tolist(), expected[mask].tolist(), strict=True))
            assert len(pairs) == count  # one to one
            assert (parts.labels[~mask] == -1).all()
            for number in range(count):
                rows, columns = np.nonzero(parts.labels == number)
                box = [rows.min(), columns.min(), rows.max(), columns.max()]
                assert parts.boxes[number].tolist() == box
                assert parts.areas[number] == len(rows)
