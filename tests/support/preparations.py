"""Pictures prepared by the page's JavaScript in a browser, and by the client in Python."""

import base64
import functools
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from playwright.sync_api import Browser, Page, Route

from forward_client.pictures import PictureError, read_images
from tests.support.bundles import REPOSITORY

WEB = REPOSITORY / "server/transport/http/web"
ORIGIN = "http://page.test/"
BATCH = 40  # pictures of one call into the browser
PREPARE = """async (pictures) => {
  const { prepare } = await import("/preparation.js");
  return pictures.map(({ data, width, height, channels, isBytes }) => {
    const bytes = Uint8Array.from(atob(data), (character) => character.charCodeAt(0));
    const pixels = isBytes ? bytes : new Float32Array(bytes.buffer);
    const start = performance.now();
    try {
      const { pixels: made, warnings, steps } = prepare(pixels, width, height, channels);
      const shapes = steps.map(({ name, height, width, pixels, box }) =>
        [name, height, width, pixels.length, box]);
      return { pixels: [...made], warnings, shapes, ms: performance.now() - start };
    } catch (error) {
      return { error: error.message };
    }
  });
}"""


@dataclass(frozen=True)
class Prepared:
    """What became of a picture: an image and warnings, or an error."""

    pixels: bytes = b""
    warnings: tuple[str, ...] = ()
    error: str | None = None


def module_page(chromium: Browser, change: tuple[str, str, str] | None = None) -> Page:
    """Open a page with the modules; `change`: a file, a text in it, another instead."""
    page = chromium.new_page()

    def serve(route: Route) -> None:
        name = route.request.url.removeprefix(ORIGIN)
        if not name:
            route.fulfill(body="<!doctype html><title>Modules</title>", content_type="text/html")
            return
        text = (WEB / name).read_text()
        if change is not None and name == change[0]:
            assert change[1] in text
            text = text.replace(change[1], change[2])
        route.fulfill(body=text, content_type="text/javascript")

    page.route("**/*", serve)
    page.goto(ORIGIN)
    return page


def run_in_browser(page: Page, pictures: list[np.ndarray]) -> list[dict[str, Any]]:
    """Prepare pictures [height, width] or [height, width, channels], uint8 or float32."""
    results: list[dict[str, Any]] = []
    for start in range(0, len(pictures), BATCH):
        batch = [
            {
                "data": base64.b64encode(np.ascontiguousarray(each).tobytes()).decode(),
                "height": each.shape[0],
                "width": each.shape[1],
                "channels": each.shape[2] if each.ndim == 3 else 1,
                "isBytes": each.dtype == np.uint8,
            }
            for each in pictures[start : start + BATCH]
        ]
        results += page.evaluate(PREPARE, batch)
    return results


def prepared_by_page(page: Page, pictures: list[np.ndarray]) -> list[Prepared]:
    """Return what the page makes of pictures."""
    return [
        Prepared(bytes(each.get("pixels", ())), tuple(each.get("warnings", ())), each.get("error"))
        for each in run_in_browser(page, pictures)
    ]


def prepared_by_client(picture: np.ndarray) -> Prepared:
    """Return what the client makes of a picture: of its file, PNG for bytes and else .npy."""
    return _prepared_by_client(picture.tobytes(), picture.shape, picture.dtype.str)


@functools.lru_cache(maxsize=100)
def _prepared_by_client(data: bytes, shape: tuple[int, ...], kind: str) -> Prepared:
    picture = np.frombuffer(data, kind).reshape(shape)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ("picture.png" if picture.dtype == np.uint8 else "picture.npy")
        if picture.dtype == np.uint8:
            Image.fromarray(picture).save(path, compress_level=0)
        else:
            np.save(path, picture)
        try:
            images = read_images(path)
        except PictureError as error:
            return Prepared(error=str(error).removeprefix(f"{path}: "))
    return Prepared(images.pixels.tobytes(), images.warnings)


def differing(page: Page, pictures: list[np.ndarray]) -> list[int]:
    """Return which pictures the page makes other images, warnings or errors of than the client."""
    ours = prepared_by_page(page, pictures)
    return [at for at, each in enumerate(pictures) if ours[at] != prepared_by_client(each)]
