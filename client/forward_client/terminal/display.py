"""Predictions and traces in the terminal, and as JSON for programs."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from forward_client.output import printable
from forward_client.results import Model, Prediction, Trace

BAR_WIDTH = 28
SHADES, ASCII_SHADES = " ░▒▓█", " .+#@"
STATISTICS = {
    "min": "min",
    "max": "max",
    "mean": "mean",
    "standard_deviation": "std",
    "l2_norm": "norm",
}


def show_prediction(  # noqa: PLR0913 (what is shown, and two abilities of the terminal)
    title: str,
    images: np.ndarray,
    prediction: Prediction,
    model: Model,
    *,
    color: bool,
    ascii_only: bool = False,
) -> RenderableType:
    """Return one image, in color or in shades of text, beside its scores; or several as a table.

    `ascii_only` is for output that lacks the characters of shades and bars.
    """
    title = printable(title)
    if len(images) > 1:
        return _table_of_images(title, prediction, model)
    label = printable(model.labels[prediction.classes[0]])
    heading = Text.assemble(title, ": ", (label, "bold green"))
    image = show_image(images[0], color=color, ascii_only=ascii_only)
    bars = _bars(prediction, model, "#" if ascii_only else "█")
    return Group(heading, Columns([image, bars], padding=(0, 3)))


def show_trace(trace: Trace, *, ascii_only: bool = False) -> Table:
    """Return the stages as a table of shapes and statistics."""
    who = printable(f"{trace.model_name} version {trace.model_version} on {trace.runtime}")
    table = Table(
        title=f"{who}: run in {trace.run_seconds * 1e6:.0f} {'us' if ascii_only else 'µs'}",
        title_justify="left",
        box=SIMPLE_HEAD,  # this and the padding: all columns in 80 characters
        pad_edge=False,
        collapse_padding=True,
    )
    table.add_column("stage", style="bold", overflow="fold")
    # The bounds take the place of the norms: all columns in 80 characters.
    is_bounded = any(stage.bound is not None for stage in trace.stages)
    shown = {key: STATISTICS[key] for key in STATISTICS if key != "l2_norm" or not is_bounded}
    for heading in ("shape", "FLOPs", *shown.values(), "zeros", *["bound"] * is_bounded):
        table.add_column(heading, justify="right", overflow="fold")
    for stage in trace.stages:
        table.add_row(
            f"{printable(stage.name)}{' *' if stage.changed else ''}",
            str(list(stage.shape)),
            f"{stage.flops_per_image:,}",
            *(f"{stage.statistics[name]:.3g}" for name in shown),
            f"{stage.statistics['zero_share']:.0%}",
            *([] if stage.bound is None else [f"{stage.bound:.2g}"]),
        )
    if any(stage.changed for stage in trace.stages):
        table.caption, table.caption_justify = "* changed", "left"
    return table


def show_image(image: np.ndarray, *, color: bool, ascii_only: bool = False) -> Text:
    """Return a grayscale image, [H, W], two pixels in a cell: upper and lower half."""
    shades = ASCII_SHADES if ascii_only else SHADES
    gray = image if image.dtype == np.uint8 else np.clip(image * 255, 0, 255).astype(np.uint8)
    text = Text()
    for upper, lower in zip(gray[0::2].tolist(), gray[1::2].tolist(), strict=False):
        for above, below in zip(upper, lower, strict=True):
            if color and not ascii_only:
                text.append("▀", f"rgb({above},{above},{above}) on rgb({below},{below},{below})")
            else:
                text.append(shades[(above + below) * len(shades) // 511])
        text.append("\n")
    return text


def as_records(
    title: str,
    prediction: Prediction,
    model: Model,
    *,
    first: int = 0,
    warnings: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """Return an object for each image, for JSON; the stages of a trace with the first.

    `first` is the place of the first image in its file, `warnings` what made it hard to read.
    """
    records: list[dict[str, Any]] = [
        {
            "file": title,
            "index": first + index,
            "label": model.labels[best],
            "probability": float(probabilities[best]),
            "logits": dict(zip(model.labels, map(float, logits), strict=True)),
            "model": prediction.model_name,
            "version": prediction.model_version,
            "runtime": prediction.runtime,
            "warnings": list(warnings),
        }
        for index, (best, probabilities, logits) in enumerate(
            zip(prediction.classes, prediction.probabilities, prediction.logits, strict=True)
        )
    ]
    if isinstance(prediction, Trace):
        records[0]["trace"] = {
            "queue_seconds": prediction.queue_seconds,
            "run_seconds": prediction.run_seconds,
            "stages": [
                {
                    "name": stage.name,
                    "operation": stage.operation,
                    "shape": list(stage.shape),
                    "flops_per_image": stage.flops_per_image,
                    "statistics": stage.statistics,
                }
                for stage in prediction.stages
            ],
        }
    return records


def _bars(prediction: Prediction, model: Model, block: str) -> Table:
    table = Table(box=None, show_header=True, header_style="dim", pad_edge=False)
    for heading, justify in (("", "right"), ("logit", "right"), ("probability", "left")):
        table.add_column(heading, justify=justify)  # type: ignore[arg-type] # a Literal, widened by the loop
    best = prediction.classes[0]
    for index, label in enumerate(model.labels):
        share = float(prediction.probabilities[0, index])
        bar = block * round(share * BAR_WIDTH)
        table.add_row(
            printable(label),
            f"{prediction.logits[0, index]:.2f}",
            f"{bar} {share:.1%}",
            style="bold green" if index == best else None,
        )
    return table


def _table_of_images(title: str, prediction: Prediction, model: Model) -> Table:
    table = Table(title=title, title_justify="left")
    for heading in ("image", "digit", "probability"):
        table.add_column(heading, justify="right")
    best_shares: Sequence[float] = prediction.probabilities.max(axis=1)
    for index, (best, share) in enumerate(zip(prediction.classes, best_shares, strict=True)):
        table.add_row(str(index), printable(model.labels[best]), f"{share:.1%}")
    return table
