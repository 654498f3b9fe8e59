"""Draw the README's pictures: a digit to try (`digit.png`) and what the client says of it.

Run as `make picture`.
"""

import io
import re
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from rich.console import Console

from forward_client import ForwardClient, Model, Trace
from forward_client.pictures import load_images
from forward_client.terminal.display import show_prediction, show_trace
from tests.support.servers import start_server

DIGIT = Path("docs/digit.png")
PICTURE = Path("docs/trace.svg")
# A 3 as a hand draws it: points of the stroke on a sheet of 240 x 280.
STROKE = (
    *((74, 72), (92, 52), (122, 44), (150, 54), (158, 80), (146, 108), (118, 128), (104, 132)),
    *((134, 136), (160, 152), (168, 182), (156, 214), (126, 234), (92, 230), (68, 210)),
)


def main() -> None:
    """Draw the digit, call a server with it, draw the client's output."""
    sheet = Image.new("RGB", (240, 280), "ivory")
    ImageDraw.Draw(sheet).line(STROKE, fill="midnightblue", width=17, joint="curve")
    sheet.save(DIGIT)
    images = load_images(DIGIT)
    with start_server() as server, ForwardClient(server.address) as client:
        traces = [client.trace(images) for _ in range(50)]
        warm = sorted(traces, key=lambda trace: trace.run_seconds)[25]
        draw(images, warm, client.model())


def draw(images: np.ndarray, trace: Trace, model: Model) -> None:
    """Write the output of `predict --trace` as a picture that loads nothing."""
    console = Console(
        record=True, width=80, file=io.StringIO(), force_terminal=True, highlight=False
    )
    console.print(f"$ python -m client predict {DIGIT} --trace")
    console.print(show_prediction(str(DIGIT), images, trace, model, color=True))
    console.print(show_trace(trace))
    svg = console.export_svg(title="Forward")
    # The reader's own monospaced font will do.
    PICTURE.write_text(re.sub(r"@font-face \{.*?\}\n", "", svg, flags=re.DOTALL))


if __name__ == "__main__":
    main()
