"""The command `explain`: which pixels and which units made a score."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from forward_client.attributions import Attribution
from forward_client.connection import ForwardClient
from forward_client.errors import ArgumentError, PictureError
from forward_client.messages import Method
from forward_client.output import printable
from forward_client.pictures import read_images
from forward_client.results import Model
from forward_client.terminal.batches import Batch, read_batches
from forward_client.terminal.display import show_image
from forward_client.terminal.screen import Screen
from forward_client.terminal.signed import legend, show_signed, sign_color

SHOWN_UNITS = 10  # beside a picture of 14 lines


@dataclass(frozen=True)
class ExplainOptions:
    """What is explained: labels of classes, the name of a stage, the file of a baseline.

    None as stage is the last hidden one of the model.
    """

    method: Method
    target: str | None
    other: str | None
    stage: str | None
    baseline: Path | None


def explain(
    client: ForwardClient, paths: Sequence[Path], options: ExplainOptions, *, as_json: bool
) -> None:
    """Print what each pixel, and each unit of a stage, contributes to the score of each image.

    Raises:
        ArgumentError: the model has no such class.
        PictureError: a file can't be read.
        ForwardError: a call failed.
    """
    model = client.model()
    target, other = (_class_of(label, model) for label in (options.target, options.other))
    stage = _hidden_stage(model) if options.stage is None else options.stage
    baseline = None if options.baseline is None else _single_image(options.baseline)
    screen = Screen.here()
    for batch in read_batches(paths, model.max_batch_images):
        answer = client.attribute(
            batch.pixels,
            method=options.method,
            target=target,
            other=other,
            stage=stage,
            baseline=baseline,
        )
        for index in range(len(batch.sources)):
            one = _One(batch, answer, index, model, options, stage or "")
            if as_json:
                print(json.dumps(one.record()))
            else:
                screen.console.print(one.shown(screen))


def _class_of(label: str | None, model: Model) -> int | None:
    if label is None:
        return None
    if label not in model.labels:
        labels = printable(", ".join(model.labels))
        raise ArgumentError(f"expected a class of {labels}, got {label!r}")
    return model.labels.index(label)


def _hidden_stage(model: Model) -> str | None:
    """Return the stage that the last Linear takes, None if that is the image itself."""
    hidden = [
        name
        for name, operation in zip(model.stages, model.operations, strict=True)
        if operation == "ReLU"
    ]
    return hidden[-1] if hidden else None


def _single_image(path: Path) -> np.ndarray:
    images = read_images(path).pixels
    if len(images) != 1:
        raise PictureError(f"{path}: expected one image as the baseline, got {len(images)}")
    single: np.ndarray = images[0]
    return single


@dataclass(frozen=True)
class _One:
    """The attribution of one image."""

    batch: Batch
    answer: Attribution
    index: int
    model: Model
    options: ExplainOptions
    stage: str  # empty for none

    @property
    def target(self) -> str:
        return self.model.labels[self.answer.target_classes[self.index]]

    def shown(self, screen: Screen) -> RenderableType:
        """Return the image, its signed picture, the strongest units and the sum."""
        contributions = self.answer.contributions[self.index]
        parts: list[RenderableType] = [
            show_image(
                self.batch.pixels[self.index], color=screen.color, ascii_only=screen.ascii_only
            ),
            show_signed(contributions, color=screen.color, ascii_only=screen.ascii_only),
        ]
        if self.answer.stage_contributions is not None:
            what = "gradient" if self.options.method == "saliency" else "contribution"
            units = self.answer.stage_contributions[self.index]
            strongest = self.answer.strongest_units(SHOWN_UNITS)[self.index]
            parts.append(_strongest(self.stage, units.ravel()[strongest], strongest, what))
        explained: list[RenderableType] = [
            self._heading(),
            Columns(parts, padding=(0, 2)),
            legend(contributions, color=screen.color, ascii_only=screen.ascii_only),
        ]
        if self.options.method != "saliency":  # gradients add up to nothing
            explained.append(self._sums())
        return Group(*explained)

    def _heading(self) -> Text:
        source = self.batch.sources[self.index]
        several = sum(each.file == source.file for each in self.batch.sources) > 1
        place = f"[{source.index}]" if several or source.index else ""
        less = "" if self.options.other is None else f" less {printable(self.options.other)}"
        what = "gradient of " if self.options.method == "saliency" else ""
        return Text.assemble(
            f"{printable(source.file)}{place}: ",
            (f"{what}{printable(self.target)}{less}", "bold green"),
            f", score {self.answer.scores[self.index]:.5g}",
        )

    def _sums(self) -> Table:
        """Return what adds up to the score, a column for the pixels and one for the units."""
        answer, index = self.answer, self.index
        columns = {"pixels": (answer.contributions[index], answer.biases[index])}
        if answer.stage_contributions is not None:
            units = answer.stage_contributions[index]
            columns[printable(self.stage)] = (units, answer.stage_biases[index])
        table = Table(box=None, header_style="dim", pad_edge=False)
        table.add_column("")
        for heading in columns:
            table.add_column(heading, justify="right")
        bias = "bias" if self.options.method == "linear_region" else "score of the baseline"
        totals = [float(values.sum(dtype=np.float64)) for values, _ in columns.values()]
        table.add_row("contributions", *(f"{total:.6f}" for total in totals))
        table.add_row(bias, *(f"{left:.6f}" for _, left in columns.values()))
        table.add_row("score", *[f"{answer.scores[index]:.6f}"] * len(columns), style="bold")
        table.add_row("residual", f"{answer.residuals[index]:.2g}")
        table.add_row("its bound", f"{answer.residual_bounds[index]:.2g}")
        return table

    def record(self) -> dict[str, Any]:
        """Return an object for JSON."""
        answer, index = self.answer, self.index
        source = self.batch.sources[index]
        record: dict[str, Any] = {
            "file": source.file,
            "index": source.index,
            "method": self.options.method,
            "target": self.target,
            "other": self.options.other,
            "score": float(answer.scores[index]),
            "sum": float(answer.contributions[index].sum(dtype=np.float64)),
            "bias": float(answer.biases[index]),
            "residual": float(answer.residuals[index]),
            "residual_bound": float(answer.residual_bounds[index]),
            "contributions": answer.contributions[index].tolist(),
            "stage": None,
            "model": answer.model_name,
            "version": answer.model_version,
            "runtime": answer.runtime,
            "warnings": list(source.warnings),
        }
        if answer.stage_contributions is not None:
            record["stage"] = {
                "name": self.stage,
                "bias": float(answer.stage_biases[index]),
                "contributions": answer.stage_contributions[index].tolist(),
            }
        return record


def _strongest(stage: str, contributions: np.ndarray, units: np.ndarray, what: str) -> Table:
    """Return units with their contributions, except those without one."""
    table = Table(box=None, header_style="dim", pad_edge=False)
    table.add_column(printable(stage), justify="right")
    table.add_column(what, justify="right")
    for unit, contribution in zip(units, contributions, strict=True):
        if contribution != 0:
            table.add_row(str(unit), Text(f"{contribution:+.3f}", sign_color(contribution)))
    return table
