"""What the page makes of a drawing or a picture is what the client makes of it, in every pixel."""

import io
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageOps
from playwright.sync_api import Browser, Page

from bench.pictures.forms import FORMS, Saved, enlarged
from tests.support.bundles import REPOSITORY
from tests.support.preparations import differing, module_page, prepared_by_page, run_in_browser
from training.data import Data

FINE = 4  # times larger than it is shown is a drawing drawn, for soft edges
COLORS = [(0, 0, 0), (255, 255, 255), (20, 40, 160), (250, 245, 220), (200, 60, 60)]
LARGE = {"140 pixels on a sheet of 2,600", "sheet of 6,000 x 300"}


@pytest.fixture(scope="module")
def page(chromium: Browser) -> Iterator[Page]:
    page = module_page(chromium)
    yield page
    page.close()


@pytest.fixture(scope="module")
def digits(mnist: Data) -> np.ndarray:
    images: np.ndarray = mnist.test.images.numpy()
    return images


Stroke = tuple[float, list[tuple[float, float]]]
places = st.tuples(st.floats(0.05, 0.95), st.floats(0.05, 0.95))
strokes = st.tuples(st.floats(0.003, 0.2), st.lists(places, min_size=1, max_size=8))


@st.composite
def drawings(draw: st.DrawFn) -> np.ndarray:
    """A drawing as a canvas has it: strokes of round pens, soft edges, gray or in colour."""
    width, height = draw(st.integers(4, 320)), draw(st.integers(4, 320))
    picture = Image.new("L", (width * FINE, height * FINE))
    pen = ImageDraw.Draw(picture)
    for share, points in draw(st.lists(strokes, max_size=4)):
        radius = share * min(picture.size) / 2
        path = [(x * picture.width, y * picture.height) for x, y in points]
        pen.line(path, 255, max(1, round(2 * radius)))
        for x, y in path:
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), 255)
    ink = np.asarray(picture.resize((width, height), Image.Resampling.BOX))
    kind = draw(st.sampled_from(["light", "dark", "colors", "alpha"]))
    if kind == "alpha":
        color = np.array(draw(st.sampled_from(COLORS)), np.uint8)
        return np.dstack([np.broadcast_to(color, (*ink.shape, 3)), ink])
    if kind == "colors":
        stroke, paper = (np.array(each) for each in draw(st.permutations(COLORS))[:2])
        covered = ink[..., None] / 255
        return np.rint(covered * stroke + (1 - covered) * paper).astype(np.uint8)
    return ink if kind == "light" else 255 - ink


@settings(max_examples=6)
@given(st.lists(drawings(), min_size=8, max_size=12))
def test_drawings_become_the_clients_images(page: Page, pictures: list[np.ndarray]) -> None:
    assert differing(page, pictures) == []


def test_digits_of_many_sizes_become_the_clients_images(page: Page, digits: np.ndarray) -> None:
    sides = np.random.default_rng(0).integers(14, 240, 100)
    pictures = [
        np.rint(255 * np.clip(enlarged(digits[at], int(side)), 0, 1)).astype(np.uint8)
        for at, side in enumerate(sides)
    ]
    assert differing(page, pictures[::2] + [255 - each for each in pictures[1::2]]) == []


def test_images_of_the_data_set_are_unchanged(page: Page, digits: np.ndarray) -> None:
    images = list(digits[:200])
    made = prepared_by_page(page, images)
    assert [each.pixels for each in made] == [each.tobytes() for each in images]
    assert differing(page, [255 - each for each in images[:50]]) == []


def decoded(saved: Saved) -> np.ndarray:
    """Return a picture of a form as a browser hands it on: 8 bits, turned as EXIF says."""
    file = io.BytesIO()
    kind = {"jpg": "JPEG"}.get(saved.ending, saved.ending)
    saved.picture.save(file, kind, **saved.options)
    picture = ImageOps.exif_transpose(Image.open(file))
    if picture.mode.startswith("I"):
        return (np.asarray(picture) >> 8).astype(np.uint8)
    plain = "L" if picture.mode in {"1", "L"} else "RGB"
    return np.asarray(picture.convert("RGBA" if picture.has_transparency_data else plain))


def in_forms(digits: np.ndarray, forms: list[str], each: int) -> list[np.ndarray]:
    return [
        decoded(FORMS[form](digits[number * 97 + at], np.random.default_rng(at)))
        for number, form in enumerate(forms)
        for at in range(each)
    ]


def test_digits_in_every_form_become_the_clients_images(page: Page, digits: np.ndarray) -> None:
    forms = [form for form in FORMS if form not in LARGE and "pen of 1" not in form]
    found = differing(page, in_forms(digits, forms, 1))
    assert [forms[at] for at in found] == []


def test_large_pictures_become_the_clients_images(page: Page, digits: np.ndarray) -> None:
    assert differing(page, in_forms(digits, sorted(LARGE), 1)) == []
    large = enlarged(digits[3], 1300)[:1000, ..., None] * [0.8, 0.6, 0.3]
    assert differing(page, [np.rint(255 * (1 - np.clip(large, 0, 1))).astype(np.uint8)]) == []


def test_tiny_and_odd_pictures_become_the_clients_images(page: Page) -> None:
    chance = np.random.default_rng(0)
    shapes = [(1, 1), (1, 9), (9, 1), (2, 2), (3, 40), (40, 3), (7, 7), (8, 8), (28, 28), (5, 700)]
    noise = [chance.integers(0, 256, shape, np.uint8) for shape in shapes]
    clear = [chance.integers(0, 256, (*shape, 4), np.uint8) for shape in shapes]
    colored = [chance.integers(0, 256, (*shape, 3), np.uint8) for shape in shapes]
    faint = [chance.integers(100, 130, shape, np.uint8) for shape in shapes]
    assert differing(page, [*noise, *colored, *clear, *faint]) == []


def test_numbers_become_the_clients_images(page: Page, digits: np.ndarray) -> None:
    pictures = [np.clip(enlarged(each, 90), 0, 1).astype(np.float32) for each in digits[:20]]
    assert differing(page, pictures) == []


def test_the_repositorys_picture_becomes_the_clients_image(page: Page) -> None:
    with Image.open(REPOSITORY / "docs/digit.png") as picture:
        pixels = np.asarray(picture)
    assert differing(page, [pixels]) == []


def test_pictures_without_ink_get_the_clients_error(page: Page) -> None:
    blank = [np.full((28, 28), 7, np.uint8), np.zeros((280, 280, 4), np.uint8)]
    blank += [np.full((50, 70, 3), 255, np.uint8), np.full((100, 100), 128, np.uint8)]
    assert {each.error for each in prepared_by_page(page, blank)} == {
        "no ink found: the picture has only one shade"
    }
    assert differing(page, blank) == []
    odd = np.full((40, 40), np.nan, np.float32)
    assert prepared_by_page(page, [odd])[0].error == (
        "no ink found: the picture has NaN or infinite values"
    )


def test_wrong_sizes_are_refused(page: Page) -> None:
    call = """async ([values, width, height, channels]) => {
      const { prepare } = await import("/preparation.js");
      try {
        prepare(Float32Array.from(values), width, height, channels);
      } catch (error) {
        return error.message;
      }
    }"""
    assert page.evaluate(call, [[0, 1], 2, 2, 1]) == "expected 2 x 2 x 1 values, got 2"
    assert page.evaluate(call, [[0] * 8, 1, 2, 4]) == (
        "expected 1 or 3 channels, or 4 of bytes, got 4"
    )


def test_steps_show_how_the_image_was_made(page: Page, digits: np.ndarray) -> None:
    picture = np.zeros((200, 300), np.uint8)
    picture[40:180, 60:130] = np.rint(255 * np.clip(enlarged(digits[0], 280), 0, 1))[
        70:210, 105:175
    ]
    drawn, ready = run_in_browser(page, [picture, digits[0]])
    names = [name for name, *_ in drawn["shapes"]]
    assert names == ["picture", "box", "scaled", "centred"]
    whole, box, scaled, centred = drawn["shapes"]
    assert whole[1:3] == [200, 300]
    assert box[1:3] == [whole[4]["height"], whole[4]["width"]]
    assert max(scaled[1:3]) == 20
    assert centred[1:3] == [28, 28]
    assert all(height * width == count for _, height, width, count, _ in drawn["shapes"])
    assert [name for name, *_ in ready["shapes"]] == ["centred"]


@pytest.mark.parametrize(
    "change",
    [
        ("numbers.js", "rest === 0.5 && floor % 2 !== 0", "rest === 0.5"),
        ("pillow.js", "Math.max(1 - Math.abs(x), 0)", "Math.max(1 - x * x, 0)"),
        ("pillow.js", "x > -0.5 && x <= 0.5", "x >= -0.5 && x < 0.5"),
        ("strokes.js", "step % 2 === 1", "step % 2 === 0"),
        ("numbers.js", "(values.length - 1) * share", "values.length * share"),
    ],
    ids=["half up", "kernel", "box", "octagons", "percentile"],
)
def test_a_fault_of_the_arithmetic_is_seen(
    chromium: Browser, digits: np.ndarray, change: tuple[str, str, str]
) -> None:
    name, *texts = change
    ring = Image.new("L", (280, 280))  # scaled to 20 x 19, its centre between two pixels
    ImageDraw.Draw(ring).rectangle((40, 40, 134, 139), outline=255, width=10)
    sides = [17] * 20 + [150] * 8
    pictures = [np.asarray(ring), *in_forms(digits, ["pen of 2.0% of the canvas"], 1)]
    pictures += [
        np.rint(255 * np.clip(enlarged(digits[at], side), 0, 1)).astype(np.uint8)
        for at, side in enumerate(sides)
    ]
    page = module_page(chromium, (f"preparation/{name}", texts[0], texts[1]))
    assert differing(page, pictures) != []
    page.close()
