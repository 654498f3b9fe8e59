"""A comparison as text and tables."""

from collections.abc import Iterable
from itertools import chain, repeat
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from export.bundle.manifest import RuntimeParity
from export.output import printable
from export.parity.compare import TIERS, Report

MARKS = {"holds": "ok", "fails": "FAIL", "not judged": "-"}


def print_report(console: Console, report: Report, path: Path) -> None:
    """Print the verdict by runtime, the reasons of failures, and the figures by stage."""
    if report.holds:
        verdict = "all hold"
    else:
        failed = any(one.status == "fails" for one in report.comparisons)
        verdict = "not all hold" if failed else "nothing was compared"
    heading = f"{path}: {report.images:,} images ({report.image_set}) against float64 NumPy"
    console.print(Text(printable(f"{heading}: {verdict}"), style="bold"), soft_wrap=True)
    if report.records():
        console.print(_verdicts(report))
    for one in report.comparisons:
        for text in filter(None, (one.reason, *(f"{f.tier}: {f.text}" for f in one.violations))):
            style = "red" if one.status == "fails" else "dim"
            line = Text(printable(f"{one.status}: {one.name}: {text}"), style=style)
            console.print(line, soft_wrap=True)
    if report.records():
        console.print(figures_table(report.records()))


def _verdicts(report: Report) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in ("runtime", "device", "precision", *TIERS, "certified", "diverges at"):
        table.add_column(heading, no_wrap=True)
    for one in report.comparisons:
        if one.record:
            table.add_row(
                one.runtime,
                one.device,
                one.precision,
                *(MARKS[one.tiers[tier]] for tier in TIERS),
                f"{one.record.certified_share:.2%}",
                printable(one.first_diverging_stage or ""),
                style="green" if one.status == "holds" else "red",
            )
    return table


def figures_table(records: Iterable[RuntimeParity]) -> Table:
    """Return the errors, a row for each runtime and stage."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in ("runtime", "stage"):
        table.add_column(heading, no_wrap=True)
    for heading in ("error", "mean", "bound", "margin", "ULPs"):
        table.add_column(heading, justify="right", no_wrap=True)
    for record in records:
        # The name of the run in the first rows: every network has at least three.
        labels = chain((record.runtime, record.provider, record.precision), repeat(""))
        for stage, label in zip(record.stages, labels, strict=False):
            table.add_row(
                label,
                printable(stage.stage),
                f"{stage.max_error:.2g}",
                f"{stage.mean_error:.2g}",
                f"{stage.bound:.2g}",
                f"{stage.margin:.2%}",
                f"{stage.max_ulps:.3g}",
            )
        table.add_section()
    return table
