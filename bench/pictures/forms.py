"""The forms: how a digit of MNIST gets into a file, as people and programs make them.

A form takes a digit, uint8 [28, 28], light on dark as MNIST has it, and a
generator of chance, and returns a picture with the options to save it with.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from bench.pictures.pens import draw

SIDE = 280  # pixels: ten for one of MNIST's
PEN_SIDE = 1000  # of the canvas that pens draw on


@dataclass(frozen=True)
class Saved:
    """A picture, the ending of its file, and what `save` is told."""

    picture: Image.Image
    ending: str = "png"
    options: dict[str, Any] = field(default_factory=dict)


Form = Callable[[np.ndarray, np.random.Generator], Saved]


def enlarged(image: np.ndarray, side: int = SIDE) -> np.ndarray:
    """Return the ink of a digit, float in 0..1, on a square of a side."""
    large = Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC)
    return np.asarray(large, np.float64) / 255


def gray(values: np.ndarray) -> Image.Image:
    """Return values in 0..1 as a picture of 8 bits."""
    return Image.fromarray(np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8))


def mixed(ink: np.ndarray, paper: tuple[int, ...], color: tuple[int, ...]) -> Image.Image:
    """Return ink of one colour on paper of another."""
    mixture = ink[..., None] * np.array(color) + (1 - ink[..., None]) * np.array(paper)
    return Image.fromarray(np.rint(mixture).astype(np.uint8))


def on_sheet(ink: np.ndarray, height: int, width: int, top: int, left: int) -> np.ndarray:
    """Return the ink somewhere on a larger sheet."""
    sheet = np.zeros((height, width))
    sheet[top : top + ink.shape[0], left : left + ink.shape[1]] = ink
    return sheet


def _plain(change: Callable[[np.ndarray, np.random.Generator], np.ndarray]) -> Form:
    """Return the form whose gray values, 1 for white paper, a function makes of the ink."""
    return lambda image, chance: Saved(gray(change(enlarged(image), chance)))


def _as_it_is(image: np.ndarray, _: np.random.Generator) -> Saved:
    return Saved(Image.fromarray(image))


def _black_on_white(image: np.ndarray, _: np.random.Generator) -> Saved:
    return Saved(Image.fromarray(255 - image))


def _tight(image: np.ndarray, _: np.random.Generator) -> Saved:
    ink = enlarged(image)
    box = Image.fromarray(ink > 0.1).getbbox()
    return Saved(gray(1 - ink).crop(box))


def _anywhere(image: np.ndarray, chance: np.random.Generator) -> Saved:
    top, left = (int(at) for at in chance.integers(0, (200, 500)))
    return Saved(gray(1 - on_sheet(enlarged(image), 480, 780, top, left)))


def _wide(image: np.ndarray, chance: np.random.Generator) -> Saved:
    left = int(chance.integers(0, 6000 - SIDE))
    return Saved(gray(1 - on_sheet(enlarged(image), 300, 6000, 10, left)))


def _small(image: np.ndarray, chance: np.random.Generator) -> Saved:
    top, left = (int(at) for at in chance.integers(0, 2400, 2))
    return Saved(gray(1 - on_sheet(enlarged(image, 140), 2600, 2600, top, left)))


def _tiny(image: np.ndarray, _: np.random.Generator) -> Saved:
    return Saved(gray(1 - enlarged(image)).resize((18, 18), Image.Resampling.BOX))


def _bilevel(image: np.ndarray, _: np.random.Generator) -> Saved:
    return Saved(gray(1 - (enlarged(image) > 0.5)).convert("1"))


def _colors(image: np.ndarray, chance: np.random.Generator) -> Saved:
    paper = np.array([1.0, 0.95, 0.8]) * chance.uniform(0.85, 1)
    ink = np.array([0.1, 0.2, 0.6]) * chance.uniform(0.5, 1)
    return Saved(mixed(enlarged(image), tuple(paper * 255), tuple(ink * 255)))


def _of_one_brightness(image: np.ndarray, _: np.random.Generator) -> Saved:
    return Saved(mixed(enlarged(image), (200, 60, 60), (40, 120, 60)))


def _low_contrast(ink: np.ndarray, _: np.random.Generator) -> np.ndarray:
    return 0.6 - 0.15 * ink


def _faint_and_noisy(ink: np.ndarray, chance: np.random.Generator) -> np.ndarray:
    return 0.6 - 0.3 * ink + chance.normal(0, 0.04, ink.shape)


def _key(image: np.ndarray, _: np.random.Generator) -> Saved:
    return Saved(gray(1 - enlarged(image)), "png", {"transparency": 255})


def _gif(image: np.ndarray, _: np.random.Generator) -> Saved:
    palette = gray(1 - enlarged(image)).convert("P", palette=Image.Palette.ADAPTIVE, colors=16)
    return Saved(palette, "gif", {"transparency": palette.getpixel((0, 0))})


def _gif_key_black(image: np.ndarray, _: np.random.Generator) -> Saved:
    levels = np.rint(enlarged(image) * 15).astype(np.uint8)  # 0 is paper, the clear one
    palette = Image.new("P", levels.shape[::-1])
    palette.putdata(levels.ravel().tolist())
    colors = [(0, 0, 0), *[(255 - step * 17,) * 3 for step in range(1, 16)]]
    palette.putpalette([value for color in colors for value in color])
    return Saved(palette, "gif", {"transparency": 0})


def _clear(color: tuple[int, int, int], under: tuple[int, int, int], blur: float = 0) -> Form:
    """Return the form of ink of a colour on what is clear, which has a colour of its own."""

    def form(image: np.ndarray, _: np.random.Generator) -> Saved:
        alpha = gray(enlarged(image)).filter(ImageFilter.GaussianBlur(blur))
        picture = Image.new("RGB", alpha.size, under)
        picture.paste(color, (0, 0, *alpha.size), alpha.point(lambda value: 255 * (value > 0)))
        picture.putalpha(alpha)
        return Saved(picture)

    return form


def _gray_alpha(image: np.ndarray, _: np.random.Generator) -> Saved:
    alpha = gray(enlarged(image))
    picture = Image.new("LA", alpha.size, (90, 0))
    picture.putalpha(alpha)
    return Saved(picture)


def _card(image: np.ndarray, _: np.random.Generator) -> Saved:
    picture = gray(1 - on_sheet(enlarged(image), 360, 360, 40, 40)).convert("RGB")
    mask = Image.new("L", picture.size, 0)
    ImageDraw.Draw(mask).rounded_rectangle((5, 5, 354, 354), 60, fill=255)
    picture.putalpha(mask)
    return Saved(picture)


def _stencil(image: np.ndarray, _: np.random.Generator) -> Saved:
    picture = Image.new("RGB", (SIDE, SIDE), (240, 240, 230))
    picture.putalpha(gray(1 - enlarged(image)))
    return Saved(picture)


def _frame(inset: int, width: int, radius: int = 0, shade: int = 0, room: int = 60) -> Form:
    """Return the form with a frame around, drawn at an inset from the canvas' edge."""

    def form(image: np.ndarray, _: np.random.Generator) -> Saved:
        side = SIDE + 2 * room
        picture = gray(1 - on_sheet(enlarged(image), side, side, room, room))
        box = (inset, inset, side - 1 - inset, side - 1 - inset)
        ImageDraw.Draw(picture).rounded_rectangle(box, radius, outline=shade, width=width)
        return Saved(picture)

    return form


def _two_frames(image: np.ndarray, chance: np.random.Generator) -> Saved:
    saved = _frame(0, 12, shade=60)(image, chance)
    side = saved.picture.size[0]
    ImageDraw.Draw(saved.picture).rectangle((25, 25, side - 26, side - 26), outline=0, width=3)
    return saved


def _scan(sides: str) -> Form:
    """Return the form with dark strips of a scanner's lid along some sides."""

    def form(image: np.ndarray, chance: np.random.Generator) -> Saved:
        values = 1 - on_sheet(enlarged(image), 400, 380, 60, 50)
        height, width = values.shape
        for side in sides:
            depth = np.array(chance.uniform(6, 22, height if side in "lr" else width))
            depth = np.sort(depth) if side in "lt" else np.full_like(depth, depth[0])
            across = np.arange(width if side in "lr" else height)
            strip = across[None] < depth[:, None]
            strip = strip[:, ::-1] if side in "rb" else strip
            values[strip if side in "lr" else strip.T] = chance.uniform(0, 0.2)
        return Saved(gray(values))

    return form


def _on_a_table(image: np.ndarray, chance: np.random.Generator) -> Saved:
    values = np.full((460, 460), 0.25) + chance.normal(0, 0.05, (460, 460))
    values[70:390, 80:380] = 0.9 - 0.85 * on_sheet(enlarged(image), 320, 300, 20, 10)
    return Saved(gray(values))


def _speck(ink: np.ndarray, _: np.random.Generator) -> np.ndarray:
    ink = ink.copy()
    ink[5:8, 5:8] = 1
    return 1 - ink


def _specks(ink: np.ndarray, chance: np.random.Generator) -> np.ndarray:
    ink = on_sheet(ink, 400, 400, 60, 60)
    for row, column in chance.integers(0, 395, (150, 2)):
        size = chance.integers(1, 5)
        ink[row : row + size, column : column + size] = 1
    return 1 - ink


def _salt_and_pepper(ink: np.ndarray, chance: np.random.Generator) -> np.ndarray:
    values = 1 - ink
    drawn = chance.random(ink.shape)
    return np.where(drawn < 0.02, 0, np.where(drawn > 0.98, 1, values))


def _slope(ink: np.ndarray, chance: np.random.Generator) -> np.ndarray:
    ink = on_sheet(ink, 400, 400, 60, 60)
    angle = chance.uniform(0, 2 * np.pi)
    rows, columns = np.mgrid[-1:1:400j, -1:1:400j]
    light = 0.7 + 0.2 * (rows * np.sin(angle) + columns * np.cos(angle))
    return light * (1 - 0.85 * ink)


def _vignette(ink: np.ndarray, _: np.random.Generator) -> np.ndarray:
    ink = on_sheet(ink, 400, 400, 60, 60)
    rows, columns = np.mgrid[-1:1:400j, -1:1:400j]
    return (0.95 - 0.25 * (rows**2 + columns**2)) * (1 - 0.85 * ink)


def _shadow(soft: float) -> Form:
    def form(image: np.ndarray, chance: np.random.Generator) -> Saved:
        ink = on_sheet(enlarged(image), 400, 400, 60, 60)
        angle, at = chance.uniform(0, 2 * np.pi), chance.uniform(-0.4, 0.4)
        rows, columns = np.mgrid[-1:1:400j, -1:1:400j]
        across = (rows * np.sin(angle) + columns * np.cos(angle) - at) / soft
        light = 0.95 - 0.35 / (1 + np.exp(-np.clip(across, -50, 50)))
        return Saved(gray(light * (1 - 0.85 * ink)))

    return form


def _noise(strength: float) -> Form:
    return _plain(lambda ink, chance: 0.9 - 0.8 * ink + chance.normal(0, strength, ink.shape))


def _jpeg(image: np.ndarray, _: np.random.Generator) -> Saved:
    return Saved(_colors(image, _).picture, "jpg", {"quality": 10})


def _webp(image: np.ndarray, _: np.random.Generator) -> Saved:
    return Saved(_colors(image, _).picture, "webp", {"quality": 5})


def _lines(shade: float, step: int, width: int, *, squared: bool = False) -> Form:
    """Return the form on lined or squared paper."""

    def form(image: np.ndarray, chance: np.random.Generator) -> Saved:
        ink = on_sheet(enlarged(image), 400, 400, 60, 60)
        paper = np.ones((400, 400))
        start = int(chance.integers(0, step))
        for at in range(start, 400, step):
            paper[at : at + width] = shade
            if squared:
                paper[:, at : at + width] = shade
        return Saved(gray(np.minimum(paper, 1 - 0.9 * ink)))

    return form


def _blurred(image: np.ndarray, _: np.random.Generator) -> Saved:
    return Saved(gray(1 - enlarged(image)).filter(ImageFilter.GaussianBlur(8)))


def _deep(noise: float, maximum: int) -> Form:
    def form(image: np.ndarray, chance: np.random.Generator) -> Saved:
        ink = enlarged(image)
        values = 0.9 - 0.7 * ink + chance.normal(0, noise, ink.shape)
        return Saved(Image.fromarray(np.rint(np.clip(values, 0, 1) * maximum).astype(np.uint16)))

    return form


def _cmyk(image: np.ndarray, chance: np.random.Generator) -> Saved:
    return Saved(_colors(image, chance).picture.convert("CMYK"), "jpg", {"quality": 80})


def _turned(image: np.ndarray, _: np.random.Generator) -> Saved:
    exif = Image.Exif()
    exif[274] = 6  # to be turned by 90 degrees
    picture = gray(1 - enlarged(image)).transpose(Image.Transpose.ROTATE_90)
    return Saved(picture, "jpg", {"exif": exif.tobytes(), "quality": 90})


def _pen(share: float) -> Form:
    return lambda image, _: Saved(draw(image, PEN_SIDE, share * PEN_SIDE))


PENS = (0.003, 0.005, 0.01, 0.02, 0.03, 0.05, 0.08, 0.1, 0.12, 0.15)

FORMS: dict[str, Form] = {
    "MNIST's own picture": _as_it_is,
    "MNIST's own picture, inverted": _black_on_white,
    "enlarged to 280 pixels, black on white": _plain(lambda ink, _: 1 - ink),
    "enlarged, white on black": _plain(lambda ink, _: ink),
    "enlarged and blurred": _blurred,
    "reduced to 18 pixels": _tiny,
    "1 bit a pixel": _bilevel,
    "anywhere on a sheet": _anywhere,
    "touching all four edges": _tight,
    "140 pixels on a sheet of 2,600": _small,
    "sheet of 6,000 x 300": _wide,
    "blue ink on ivory paper": _colors,
    "green ink on red paper of the same brightness": _of_one_brightness,
    "contrast of 15%": _plain(_low_contrast),
    "contrast of 30% with noise": _plain(_faint_and_noisy),
    "white made transparent (tRNS)": _key,
    "GIF, white made transparent": _gif,
    "GIF, transparent entry black": _gif_key_black,
    "black on transparent": _clear((0, 0, 0), (0, 0, 0)),
    "white on transparent": _clear((255, 255, 255), (255, 255, 255)),
    "gold on transparent white, soft fringe": _clear((255, 200, 0), (255, 255, 255), 4),
    "navy on transparent black, soft fringe": _clear((0, 0, 120), (0, 0, 0), 4),
    "gray with alpha (LA)": _gray_alpha,
    "card with round corners on transparent": _card,
    "transparent digit in opaque paper": _stencil,
    "frame of 2 pixels at the edge": _frame(0, 2),
    "frame of 2 pixels, inset": _frame(20, 2),
    "frame of 10% of the side": _frame(0, 40),
    "round frame, inset": _frame(8, 5, 60),
    "gray frame close to the digit": _frame(0, 6, shade=120, room=8),
    "two frames": _two_frames,
    "scan, strip on the left": _scan("l"),
    "scan, strips at top and right": _scan("tr"),
    "scan, strips on all sides": _scan("lrtb"),
    "sheet on a dark table": _on_a_table,
    "a speck of 3 pixels in the corner": _plain(_speck),
    "150 specks": _plain(_specks),
    "salt and pepper, 2% each": _plain(_salt_and_pepper),
    "light falling off to one side": _plain(_slope),
    "corners darker": _plain(_vignette),
    "soft shadow over a part": _shadow(0.2),
    "hard shadow over a part": _shadow(0.01),
    "noise of 10%": _noise(0.1),
    "noise of 20%": _noise(0.2),
    "JPEG of quality 10": _jpeg,
    "WebP of quality 5": _webp,
    "lined paper": _lines(0.7, 40, 2),
    "squared paper": _lines(0.75, 25, 2, squared=True),
    "squared paper, dark lines": _lines(0.4, 40, 2, squared=True),
    "16 bits a pixel": _deep(0, 65535),
    "16 bits a pixel with noise": _deep(0.05, 65535),
    "12 of 16 bits a pixel": _deep(0.01, 4095),
    "CMYK": _cmyk,
    "turned, with EXIF saying so": _turned,
    **{f"pen of {share:.1%} of the canvas": _pen(share) for share in PENS},
}
