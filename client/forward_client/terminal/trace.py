"""The command `trace` with changes, certificates or statistics of units."""

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

from forward_client.connection import ForwardClient
from forward_client.errors import ArgumentError
from forward_client.interventions import Intervention
from forward_client.messages import Detail
from forward_client.output import printable
from forward_client.results import Model, Prediction, Trace, TracedStage
from forward_client.terminal.batches import Batch, read_batches
from forward_client.terminal.display import as_records, show_image, show_trace
from forward_client.terminal.screen import Screen
from forward_client.trace_parts import Certificate, UnitStatistics


@dataclass(frozen=True)
class TraceOptions:
    """What a trace is asked for beside its stages."""

    interventions: tuple[Intervention, ...]
    certify: bool
    detail: Detail


def trace(
    client: ForwardClient, paths: Sequence[Path], options: TraceOptions, *, as_json: bool
) -> None:
    """Print the traces of the images of all files, which are one batch.

    Raises:
        ArgumentError: a change names images, and they don't fit in one request.
        PictureError: a file can't be read.
        ForwardError: a call failed.
    """
    model = client.model()
    batches = read_batches(paths, model.max_batch_images)
    if len(batches) > 1 and any(_names_images(each) for each in options.interventions):
        count = batches[-1].first + len(batches[-1].pixels)
        raise ArgumentError(
            f"--set names images of a batch, which this server takes up to "
            f"{model.max_batch_images} of: expected at most so many images, got {count}"
        )
    for batch in batches:
        answer = client.trace(
            batch.pixels,
            detail=options.detail,
            interventions=options.interventions,
            unchanged_logits=bool(options.interventions),
            certify=options.certify,
        )
        if as_json:
            for record in trace_records(batch, answer, model, options):
                print(json.dumps(record))
        else:
            screen = Screen.here()
            for part in _shown(batch, answer, model, options, screen):
                screen.console.print(part)


def _names_images(intervention: Intervention) -> bool:
    return intervention.images is not None or hasattr(intervention.change, "image")


def _shown(
    batch: Batch, answer: Trace, model: Model, options: TraceOptions, screen: Screen
) -> list[RenderableType]:
    single = len(batch.sources) == 1
    parts = [
        _show_one(batch, answer, model, screen) if single else _show_several(batch, answer, model)
    ]
    if options.interventions:
        parts.insert(0, printable(f"changed: {', '.join(map(str, options.interventions))}"))
    parts.append(show_trace(answer, ascii_only=screen.ascii_only))
    if any(stage.units for stage in answer.stages):
        parts.append(show_units(answer.stages))
    return parts


def _show_one(batch: Batch, answer: Trace, model: Model, screen: Screen) -> RenderableType:
    """Return the image beside its scores, before and after the changes."""
    label = printable(model.labels[answer.classes[0]])
    heading = Text.assemble(printable(batch.sources[0].file), ": ")
    unchanged = answer.unchanged
    if unchanged is not None:
        before = printable(model.labels[unchanged.classes[0]])
        still = "still " if before == label else ""
        heading.append_text(Text.assemble((before, "bold"), f", with the changes {still}"))
    heading.append(label, "bold green")
    image = show_image(batch.pixels[0], color=screen.color, ascii_only=screen.ascii_only)
    parts: list[RenderableType] = [
        heading,
        Columns([image, _scores(answer, model)], padding=(0, 3)),
    ]
    if answer.certificates:
        parts.append(_certificate_line(answer.certificates[0], model))
    return Group(*parts)


def _scores(answer: Trace, model: Model) -> Table:
    """Return the logits of the first image with their probabilities, or before and after."""
    unchanged = answer.unchanged
    headings = ["", "logit", "probability"]
    if unchanged is not None:
        headings = ["", "before", "after", "change", "probability"]
    table = Table(box=None, header_style="dim", pad_edge=False)
    for heading in headings:
        table.add_column(heading, justify="right")
    for index, label in enumerate(model.labels):
        now = float(answer.logits[0, index])
        cells = [printable(label)]
        if unchanged is not None:
            before = float(unchanged.logits[0, index])
            cells += [f"{before:.2f}", f"{now:.2f}", f"{now - before:+.2f}"]
        else:
            cells.append(f"{now:.2f}")
        cells.append(f"{answer.probabilities[0, index]:.1%}")
        table.add_row(*cells, style="bold green" if index == answer.classes[0] else None)
    return table


def _certificate_line(certificate: Certificate, model: Model) -> str:
    predicted, nearest = (
        printable(model.labels[index])
        for index in (certificate.predicted_class, certificate.nearest_class)
    )
    verdict = "certified" if certificate.certified else "not certified"
    return (
        f"{verdict}: {predicted} is {certificate.gap:.4g} above {nearest}, the bound of any "
        f"runtime's error {certificate.bound:.2g}"
    )


def _show_several(batch: Batch, answer: Trace, model: Model) -> Table:
    """Return a row for each image."""
    columns: dict[str, list[str]] = {
        "image": [str(batch.first + index) for index in range(len(batch.sources))],
        "file": [printable(source.file) for source in batch.sources],
    }
    if len(set(columns["file"])) == 1:
        del columns["file"]
    if answer.unchanged is not None:
        columns |= _columns_of(answer.unchanged, model, "before")
        columns |= _columns_of(answer, model, "after")
    else:
        columns |= _columns_of(answer, model, "digit")
    if answer.certificates:
        columns |= {
            "over": [printable(model.labels[one.nearest_class]) for one in answer.certificates],
            "by": [f"{one.gap:.3g}" for one in answer.certificates],
            "bound": [f"{one.bound:.2g}" for one in answer.certificates],
            "certified": ["yes" if one.certified else "no" for one in answer.certificates],
        }
    table = Table(title=_title(batch), title_justify="left")
    for heading in columns:
        is_text = heading == "file"
        shown = "" if heading.endswith(" share") else heading
        table.add_column(shown, justify="left" if is_text else "right", overflow="fold")
    for row in zip(*columns.values(), strict=True):
        table.add_row(*row)
    return table


def _title(batch: Batch) -> str | None:
    files = {source.file for source in batch.sources}
    return printable(files.pop()) if len(files) == 1 else None


def _columns_of(prediction: Prediction, model: Model, heading: str) -> dict[str, list[str]]:
    shares = prediction.probabilities.max(axis=1)
    return {
        heading: [printable(model.labels[best]) for best in prediction.classes],
        f"{heading} share": [f"{share:.1%}" for share in shares],
    }


def show_units(stages: Sequence[TracedStage]) -> Table:
    """Return the stages' units in numbers: dead ones, those always on, the most active."""
    table = Table(box=None, header_style="dim", pad_edge=False, title_justify="left")
    table.title = "units over the images"
    for heading in ("stage", "units", "always 0", "never 0", "largest mean", "largest std"):
        table.add_column(heading, justify="left" if heading == "stage" else "right")
    for stage in stages:
        if stage.units is not None:
            table.add_row(printable(stage.name), *_unit_cells(stage.units))
    return table


def _unit_cells(units: UnitStatistics) -> list[str]:
    zeros = units.zero_share.ravel()
    return [
        str(zeros.size),
        str(np.count_nonzero(zeros == 1)),
        str(np.count_nonzero(zeros == 0)),
        _largest(units.mean),
        _largest(units.standard_deviation),
    ]


def _largest(values: np.ndarray) -> str:
    flat = np.where(np.isnan(values), -np.inf, values).ravel()
    unit = int(np.argmax(flat))
    return f"{flat[unit]:.3g} [{unit}]"


def trace_records(
    batch: Batch, answer: Trace, model: Model, options: TraceOptions
) -> list[dict[str, Any]]:
    """Return an object for each image, for JSON; the stages of a trace with the first."""
    records = as_records("", answer, model)
    for index, (record, source) in enumerate(zip(records, batch.sources, strict=True)):
        record |= {
            "file": source.file,
            "index": source.index,
            "warnings": list(source.warnings),
        }
        if answer.unchanged is not None:
            record["unchanged"] = _prediction_record(answer.unchanged, index, model)
        if answer.certificates:
            record["certificate"] = _certificate_record(answer.certificates[index], model)
    traced = records[0]["trace"]
    if options.interventions:
        traced["interventions"] = [str(each) for each in options.interventions]
    for record, stage in zip(traced["stages"], answer.stages, strict=True):
        if options.interventions:
            record["changed"] = stage.changed
        if stage.bound is not None:
            record["bound"] = stage.bound
        if stage.units is not None:
            record["units"] = {name: values.tolist() for name, values in vars(stage.units).items()}
    return records


def _prediction_record(prediction: Prediction, index: int, model: Model) -> dict[str, Any]:
    best = prediction.classes[index]
    return {
        "label": model.labels[best],
        "probability": float(prediction.probabilities[index, best]),
        "logits": dict(zip(model.labels, map(float, prediction.logits[index]), strict=True)),
    }


def _certificate_record(certificate: Certificate, model: Model) -> dict[str, Any]:
    return {
        "predicted": model.labels[certificate.predicted_class],
        "nearest": model.labels[certificate.nearest_class],
        "gap": certificate.gap,
        "bound": certificate.bound,
        "certified": certificate.certified,
    }
