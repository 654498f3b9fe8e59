"""The page in Chromium: drawing by real pointer events, reading what it shows and what it sent."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import grpc
import numpy as np
from playwright.sync_api import BrowserContext, ConsoleMessage, Page, Request

from forward.v1 import forward_pb2 as pb
from forward.v1 import forward_pb2_grpc

TIMES = "\N{MULTIPLICATION SIGN}"
PAD_SIDE = 280  # of the pad in its own units, strokes.js
SETTLE_MILLISECONDS = 30_000
Stroke = Sequence[tuple[float, float]]

SEVEN: Sequence[Stroke] = [[(70, 70), (130, 66), (205, 70), (170, 140), (140, 240)]]
PLUS: Sequence[Stroke] = [[(140, 60), (140, 220)], [(60, 140), (220, 140)]]

_STATE = """async () => {
  const { app } = await import('/main.js');
  const { sheets, images, selected, interventions, connection, model, panel } = app.store.get();
  return { images: images.map((image) => [...image]), selected, interventions, connection, panel,
           version: model.model.version, strokes: sheets[selected].strokes.length };
}"""
_RESET = """async () => {
  const { app, EXAMPLE } = await import('/main.js');
  app.sheets.showExample(EXAMPLE);
  app.store.set({ interventions: [], focus: null });
  scrollTo(0, 0);
}"""
_SETTLED = """async (limit) => {
  const { app } = await import('/main.js');
  const end = performance.now() + limit;
  while (performance.now() < end) {
    const { trace, images, interventions, tracing } = app.store.get();
    const isNewest = trace?.images === images && trace.interventions === interventions;
    if (isNewest && !tracing) return true;
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  return false;
}"""
_STAGES = """() => [...document.querySelectorAll('.stage')].map((stage) => ({
  name: stage.dataset.stage,
  shape: stage.querySelector('.shape').textContent,
  line: stage.querySelector('.stage-line').textContent,
  statistics: Object.fromEntries([...stage.querySelectorAll('[data-statistic]')].map(
    (number) => [number.dataset.statistic, [number.value, number.textContent]])),
  bars: [...stage.querySelectorAll('.bars data')].map(
    (number) => [number.value, number.textContent]),
}))"""


@dataclass
class OpenPage:
    """A page of a server, and what it has said and asked for."""

    page: Page
    origin: str
    console: list[str] = field(default_factory=list)  # errors and warnings
    foreign: list[str] = field(default_factory=list)  # addresses elsewhere
    most_traces: int = 0  # that were under way at the same time
    _traces: int = 0

    def __post_init__(self) -> None:
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.console.append(str(error)))
        self.page.on("request", self._see)
        self.page.on("requestfinished", lambda request: self._count(request, -1))
        self.page.on("requestfailed", lambda request: self._count(request, -1))

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self.console.append(message.text)

    def _see(self, request: Request) -> None:
        parts = urlsplit(request.url)
        own = f"{parts.scheme}://{parts.netloc}" == self.origin
        if not own and parts.scheme not in {"data", "blob"}:
            self.foreign.append(request.url)
        self._count(request, 1)

    def _count(self, request: Request, change: int) -> None:
        if request.url.endswith("/Trace"):
            self._traces += change
            self.most_traces = max(self.most_traces, self._traces)

    def open(self, fragment: str = "") -> None:
        self.page.goto(f"{self.origin}/{fragment}")
        self.page.wait_for_selector(".stage [data-statistic]")
        self.settle()

    def reset(self) -> None:
        """Bring the page to the state in which it opens, but for where it is scrolled to."""
        self.page.evaluate(_RESET)
        self.settle()
        self.most_traces = 0

    def judge(self) -> None:
        """Fail if anything was asked of another origin, or the console holds an error."""
        console, self.console = self.console, []
        assert self.foreign == []
        assert console == []

    def settle(self) -> None:
        """Wait until what is shown is the trace of what is drawn."""
        assert self.page.evaluate(_SETTLED, SETTLE_MILLISECONDS), "no trace of the newest drawing"

    @property
    def state(self) -> dict[str, Any]:
        state: dict[str, Any] = self.page.evaluate(_STATE)
        return state

    def images(self) -> np.ndarray:
        """Return the images of the batch, uint8 [N, pixels]."""
        return np.array(self.state["images"], np.uint8)

    def draw(self, strokes: Sequence[Stroke], pointer: str = "mouse") -> None:
        """Draw strokes, in units of the pad, by real events of the browser's."""
        self.draw_without_waiting(strokes, pointer)
        self.settle()

    def draw_without_waiting(self, strokes: Sequence[Stroke], pointer: str = "mouse") -> None:
        frame = self.page.locator(".pad-canvas").bounding_box()
        assert frame
        scale = frame["width"] / PAD_SIDE
        session = self.page.context.new_cdp_session(self.page)
        send = _touch if pointer == "touch" else _mouse
        for stroke in strokes:
            left, top = frame["x"], frame["y"]
            points = [(round(left + scale * x), round(top + scale * y)) for x, y in stroke]
            send(session.send, points, pointer)
        session.detach()

    def stages(self) -> list[dict[str, Any]]:
        """Return what the pipeline shows of each stage."""
        stages: list[dict[str, Any]] = self.page.evaluate(_STAGES)
        return stages


def _mouse(
    send: Callable[[str, dict[str, Any]], Any], points: Sequence[tuple[float, float]], pointer: str
) -> None:
    kinds = ["mousePressed", *["mouseMoved"] * (len(points) - 1), "mouseReleased"]
    for kind, (x, y) in zip(kinds, [*points, points[-1]], strict=True):
        send(
            "Input.dispatchMouseEvent",
            {"type": kind, "x": x, "y": y, "button": "left", "buttons": 1, "clickCount": 1,
             "pointerType": pointer},
        )  # fmt: skip


def _touch(
    send: Callable[[str, dict[str, Any]], Any], points: Sequence[tuple[float, float]], _: str
) -> None:
    for i, (x, y) in enumerate(points):
        kind = "touchMove" if i else "touchStart"
        send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y}]})
    send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})


def trace_of(
    address: str,
    images: np.ndarray,
    shape: Sequence[int],
    **more: Any,  # noqa: ANN401 (fields of the request)
) -> pb.TraceResponse:
    """Return the server's own trace of images, uint8 [N, pixels], over gRPC."""
    tensor = pb.Tensor(dtype=pb.DATA_TYPE_UINT8, shape=[len(images), *shape], data=images.tobytes())
    request = pb.TraceRequest(images=tensor, detail=pb.DETAIL_FULL, **more)
    with grpc.insecure_channel(address) as channel:
        response: pb.TraceResponse = forward_pb2_grpc.ForwardServiceStub(channel).Trace(
            request, timeout=60
        )
    return response


def float32s(tensor: pb.Tensor) -> np.ndarray:
    return np.frombuffer(tensor.data, "<f4").reshape(tuple(tensor.shape))


def shown(text: str) -> float:
    """Return the number that a text shows."""
    plain = text.replace("\N{MINUS SIGN}", "-")
    return float(plain.removesuffix(" %")) / (100 if plain.endswith("%") else 1)


def watch(context: BrowserContext, origin: str) -> OpenPage:
    """Return a new page of a server."""
    return OpenPage(context.new_page(), origin)
