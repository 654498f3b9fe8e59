"""The panels of the page: coming to one, and reading its tables and pictures."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import grpc
import numpy as np
from playwright.sync_api import Locator

from export.bundle import Bundle
from forward.v1 import forward_pb2 as pb
from forward.v1.forward_pb2_grpc import ForwardServiceStub
from tests.support.pages import OpenPage
from tests.support.servers import RunningServer, start_server

_FRAMES = """async () => {
  for (let i = 0; i < 4; i += 1) await new Promise((resolve) => requestAnimationFrame(resolve));
}"""
_ROWS = """(table) => [...table.tBodies[0].rows].map((row) => [...row.cells].map((cell) => {
  const number = cell.querySelector('data');
  return [cell.textContent, number ? number.value : null];
}))"""
_SIGNS = """(canvas) => {
  const { width, height } = canvas;
  const copy = new OffscreenCanvas(width, height).getContext('2d', { willReadFrequently: true });
  copy.drawImage(canvas, 0, 0);
  const { data } = copy.getImageData(0, 0, width, height);
  const signs = [];
  for (let at = 0; at < data.length; at += 4) {
    signs.push('-0+'[1 + Math.sign(data[at + 2] - data[at])]);
  }
  return [width, signs.join('')];
}"""


@dataclass(frozen=True)
class Cell:
    """A cell of a table: what is read, and the exact number behind it."""

    text: str
    value: str | None

    @property
    def number(self) -> float:
        assert self.value is not None, self.text
        return float(self.value)

    @property
    def decimal(self) -> Decimal:
        """What is read, exactly."""
        return Decimal(self.text.replace("\N{MINUS SIGN}", "-").removesuffix(" %"))


def look(page: OpenPage, section: str) -> Locator:
    """Go to a section and wait until it shows what is drawn."""
    page.page.locator(f"#{section} > .body > *").first.scroll_into_view_if_needed()
    wait(page)
    return page.page.locator(f"#{section}")


def wait(page: OpenPage) -> None:
    """Wait until the panels show what is drawn."""
    page.settle()
    page.page.evaluate(_FRAMES)


def take_refusal(page: OpenPage, status: int) -> None:
    """Wait for what Chromium logs of a refused call, and forget it: the page told it in words."""
    for _ in range(1000):
        if any(str(status) in text for text in page.console):
            page.console = [text for text in page.console if str(status) not in text]
            return
        page.page.wait_for_timeout(10)
    raise AssertionError(f"no call was refused with {status}")


def rows(place: Locator, caption: str) -> list[list[Cell]]:
    """Return the body of the table whose caption starts so."""
    table = place.locator("table", has=place.page.locator(f"caption:text('{caption}')"))
    return [[Cell(*cell) for cell in row] for row in table.evaluate(_ROWS)]


def column(place: Locator, caption: str, index: int) -> np.ndarray:
    """Return the numbers of a column, float64."""
    return np.array([row[index].number for row in rows(place, caption)])


def adds_up(table: Sequence[Sequence[Cell]]) -> bool:
    """Tell whether the last number of a table, as it is read, is the sum of those above."""
    *terms, total = [row[-1].decimal for row in table]
    return sum(terms) == total


def signs(canvas: Locator) -> np.ndarray:
    """Return 1 where a picture is more blue than orange, -1 where less, 0 for neither, [H, W]."""
    width, text = canvas.evaluate(_SIGNS)
    found = np.frombuffer(text.encode(), np.uint8).reshape(-1, width)
    return (found == ord("+")).astype(int) - (found == ord("-"))


@contextmanager
def calls(server: RunningServer) -> Iterator[ForwardServiceStub]:
    """The server over gRPC."""
    with grpc.insecure_channel(server.address) as channel:
        yield ForwardServiceStub(channel)


def image_tensor(page: OpenPage, shape: Sequence[int] = (28, 28)) -> pb.Tensor:
    """Return the batch of a page."""
    images = page.images()
    return pb.Tensor(dtype=pb.DATA_TYPE_UINT8, shape=[len(images), *shape], data=images.tobytes())


def pixels(page: OpenPage, index: int = 0) -> np.ndarray:
    """Return an image of the batch as the network takes it, float32 [pixels]."""
    return page.images()[index].astype(np.float32) / np.float32(255)


def sequential_pass(weights: Mapping[str, np.ndarray], image: np.ndarray) -> dict[str, np.ndarray]:
    """Return two layers' outputs in float32, summed one product after the other."""
    values = {"input": image, "flatten": image}
    values["linear1"] = _linear(weights, "linear1", image)
    values["relu"] = np.maximum(values["linear1"], np.float32(0))
    values["linear2"] = values["output"] = _linear(weights, "linear2", values["relu"])
    return values


def _linear(weights: Mapping[str, np.ndarray], name: str, inputs: np.ndarray) -> np.ndarray:
    products = weights[f"{name}.weight"] * inputs
    sums: np.ndarray = np.cumsum(products, axis=1, dtype=np.float32)[:, -1]
    return sums + weights[f"{name}.bias"]


@contextmanager
def serving(bundle: Bundle, *options: str) -> Iterator[RunningServer]:
    """A server of a bundle, with its page."""
    folder = ("--models-dir", str(bundle.path.parent.parent), "--model", bundle.manifest.name)
    with start_server(*folder, "--device", "cpu", "--http-port", "0", *options) as server:
        yield server


def state(page: OpenPage, key: str) -> Any:  # noqa: ANN401 (any part of the page's state)
    """Return a part of the page's state."""
    text = page.page.evaluate(
        f"async () => JSON.stringify((await import('/main.js')).app.store.get().{key})"
    )
    return json.loads(text)
