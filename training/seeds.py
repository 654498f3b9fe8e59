"""Trainings with several seeds: the figures of each, and over all."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from rich.box import SIMPLE_HEAD
from rich.table import Table
from scipy import stats

from training.history import seconds_to
from training.results import TrainingResult

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Spread:
    """Mean, sample standard deviation and interval of the mean of a figure over trainings."""

    mean: float
    deviation: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    """Return the spread of two or more shares; the interval is Student's, of 95%."""
    mean, deviation = fmean(values), stdev(values)
    half = stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1) * deviation / math.sqrt(len(values))
    return Spread(mean, deviation, max(0.0, mean - half), min(1.0, mean + half))


# Seconds until the held-out accuracy was first 98% and 99%, and of the whole training.
HEADINGS = ("seed", "held-out", "test", "s to 98%", "to 99%", "in all", "SHA-256")


def seeds_rows(results: Sequence[TrainingResult]) -> list[tuple[str, ...]]:
    """Return a row for each training under `HEADINGS`, then mean, deviation and interval."""
    rows = [
        (
            f"{result.recipe.seed}",
            f"{result.held_out.accuracy:.2%}",
            f"{result.test.accuracy:.2%}",
            *(_seconds(seconds_to(result.epochs, accuracy)) for accuracy in (0.98, 0.99)),
            f"{result.seconds:.0f}",
            result.weights_sha256[:8],
        )
        for result in results
    ]
    if len(results) < 2:
        return rows
    spreads = [
        spread([getattr(result, split).accuracy for result in results])
        for split in ("held_out", "test")
    ]
    seconds = fmean(result.seconds for result in results)
    blanks = ("", "")
    return [
        *rows,
        ("mean", *(f"{one.mean:.3%}" for one in spreads), *blanks, f"{seconds:.0f}", ""),
        ("deviation", *(f"{one.deviation:.3%}" for one in spreads), *blanks, "", ""),
        (
            f"{CONFIDENCE:.0%} interval",
            *(f"{100 * one.low:.2f}-{one.high:.2%}" for one in spreads),
            *blanks,
            "",
            "",
        ),
    ]


def _seconds(value: float | None) -> str:
    return "never" if value is None else f"{value:.1f}"


def seeds_table(results: Sequence[TrainingResult]) -> Table:
    """Return the rows as a table for the terminal."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in HEADINGS:
        table.add_column(heading, justify="left" if heading == "seed" else "right", no_wrap=True)
    for row in seeds_rows(results):
        if row[0] == "mean":
            table.add_section()
        table.add_row(*row)
    return table
