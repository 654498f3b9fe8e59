"""Trainings with several seeds: the choice among them, and figures over all."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from rich.box import SIMPLE_HEAD
from rich.table import Table
from scipy import stats

from export.network import Network, weights_of
from export.writers import write_weights
from training.config import Recipe
from training.evaluate import Evaluation
from training.history import Epoch, seconds_to

CONFIDENCE = 0.95


@dataclass(frozen=True)
class TrainingResult:
    """A training that is done, and what its network is worth."""

    recipe: Recipe
    epochs: tuple[Epoch, ...]
    network: Network  # takes pixels 0..1
    held_out: Evaluation
    test: Evaluation

    @property
    def seconds(self) -> float:
        """Time of the training."""
        return math.fsum(epoch.seconds for epoch in self.epochs)

    @property
    def weights_sha256(self) -> str:
        """SHA-256 of `weights.safetensors`."""
        return hashlib.sha256(write_weights(weights_of(self.network))).hexdigest()


def best_run(runs: Sequence[TrainingResult]) -> TrainingResult:
    """Return the run of the best accuracy on held-out images; at a tie, of the smaller loss."""
    return max(runs, key=lambda run: (run.held_out.accuracy, -run.held_out.loss))


@dataclass(frozen=True)
class Spread:
    """Mean, sample standard deviation and interval of the mean of a figure over runs."""

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


def seeds_rows(runs: Sequence[TrainingResult]) -> list[tuple[str, ...]]:
    """Return a row for each run under `HEADINGS`, then mean, deviation and interval."""
    rows = [
        (
            f"{run.recipe.seed}",
            f"{run.held_out.accuracy:.2%}",
            f"{run.test.accuracy:.2%}",
            *(_seconds(seconds_to(run.epochs, accuracy)) for accuracy in (0.98, 0.99)),
            f"{run.seconds:.0f}",
            run.weights_sha256[:8],
        )
        for run in runs
    ]
    if len(runs) < 2:
        return rows
    spreads = [
        spread([getattr(run, split).accuracy for run in runs]) for split in ("held_out", "test")
    ]
    seconds = fmean(run.seconds for run in runs)
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


def seeds_table(runs: Sequence[TrainingResult]) -> Table:
    """Return the rows as a table for the terminal."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in HEADINGS:
        table.add_column(heading, justify="left" if heading == "seed" else "right", no_wrap=True)
    for row in seeds_rows(runs):
        if row[0] == "mean":
            table.add_section()
        table.add_row(*row)
    return table
