"""The output of a running training: a table, a chart, and TensorBoard's events."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean
from typing import Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from training.errors import ConfigurationError
from training.history import Epoch, observation
from training.trainer import Trainer

HEADINGS = (
    f"{'epoch':>5}  {'loss':>7}  {'accuracy':>8}  {'held-out loss':>13}  {'accuracy':>8}  "
    f"{'rate':>8}  {'gradient':>8}  {'dead':>4}  {'seconds':>7}  observation"
)
CHART_ROWS, CHART_COLUMNS = 8, 72
BLOCKS, ASCII_BLOCKS = " ▁▂▃▄▅▆▇█", " ..::||##"  # an eighth to all of a row


class Callback(Protocol):
    """Is called in the course of a training."""

    def on_step(self) -> None:
        """Take note that a step has ended."""

    def on_epoch_end(self, epoch: Epoch) -> None:
        """Take note of the epoch that has ended."""


class Callbacks:
    """Several callbacks as one."""

    def __init__(self, *callbacks: Callback) -> None:
        self._callbacks = callbacks

    def on_step(self) -> None:
        """Call each one's `on_step`."""
        for callback in self._callbacks:
            callback.on_step()

    def on_epoch_end(self, epoch: Epoch) -> None:
        """Call each one's `on_epoch_end`."""
        for callback in self._callbacks:
            callback.on_epoch_end(epoch)


def table_row(epochs: Sequence[Epoch]) -> str:
    """Return the line of the last epoch, under `HEADINGS`."""
    epoch = epochs[-1]
    return (
        f"{epoch.epoch:>5}  {epoch.train_loss:>7.4f}  {epoch.train_accuracy:>8.2%}  "
        f"{epoch.held_out_loss:>13.4f}  {epoch.held_out_accuracy:>8.2%}  "
        f"{epoch.learning_rate:>8.2g}  {epoch.gradient_norm:>8.2g}  {epoch.dead_units:>4}  "
        f"{epoch.seconds:>7.2f}  {observation(epochs[:-1], epoch)}"
    )


def chart(title: str, values: Sequence[float], blocks: str = BLOCKS) -> str:
    """Draw positive values by epoch as columns of blocks, on a logarithmic scale.

    A column is the mean of as many epochs as it takes to fit, or an epoch is several columns.
    """
    per_column, repeats = -(-len(values) // CHART_COLUMNS), CHART_COLUMNS // len(values)
    columns = [
        math.log(max(fmean(part), 1e-6))
        for part in (values[i : i + per_column] for i in range(0, len(values), per_column))
    ]
    low, high = min(columns), max(columns)
    span = (high - low) or 1.0
    # From one eighth of a row, so that the lowest is visible, to all of them.
    eighths = [1 + round((value - low) / span * (8 * CHART_ROWS - 1)) for value in columns]
    lines = [
        "".join(blocks[min(8, max(0, height - 8 * row))] * max(1, repeats) for height in eighths)
        for row in range(CHART_ROWS - 1, -1, -1)
    ]
    heading = f"{title}: {math.exp(high):.3g} at the top, {math.exp(low):.3g} at the bottom"
    return "\n".join([heading, *lines])


class Terminal:
    """Prints a line for each epoch; on a terminal, with a chart and a progress bar below."""

    def __init__(self, console: Console, trainer: Trainer) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
        self._console = console
        self._epochs = list(trainer.epochs)  # of a resumed training, those before
        self._progress = Progress(*columns, console=console, auto_refresh=False)
        self._task = self._progress.add_task(
            f"seed {trainer.recipe.seed}",
            total=trainer.recipe.epochs * trainer.steps_per_epoch,
            completed=len(trainer.epochs) * trainer.steps_per_epoch,
        )
        self._live = Live(self._progress, console=console, transient=True, refresh_per_second=4)

    @contextmanager
    def live(self) -> Iterator[None]:
        """Show chart and bar while the block runs; print the chart after it, unless it raises."""
        self._console.print(HEADINGS, style="bold", soft_wrap=True)
        with self._live:
            yield
        if self._epochs:
            self._console.print(self._chart())

    def on_step(self) -> None:
        """Advance the bar."""
        self._progress.advance(self._task)

    def on_epoch_end(self, epoch: Epoch) -> None:
        """Print the line, draw the chart."""
        self._epochs.append(epoch)
        self._console.print(table_row(self._epochs), soft_wrap=True)
        if self._console.is_terminal:
            self._live.update(Group(self._chart(), self._progress))

    def _chart(self) -> Text:
        errors = [100 * (1 - epoch.held_out_accuracy) for epoch in self._epochs]
        blocks = ASCII_BLOCKS if self._console.options.ascii_only else BLOCKS
        return Text(chart("error on held-out images, %", errors, blocks), style="cyan")


class TensorBoard:
    """Writes TensorBoard's events: a scalar for each figure of an epoch."""

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard.writer import SummaryWriter  # noqa: PLC0415 (an extra)
        except ModuleNotFoundError as error:
            raise ConfigurationError(
                f"--tensorboard: needs {error.name!r}; install the tensorboard extra: "
                "pip install --editable '.[train,tensorboard]'"
            ) from error
        self._writer = SummaryWriter(folder)

    def on_step(self) -> None:
        """Write nothing: the figures are of epochs."""

    def on_epoch_end(self, epoch: Epoch) -> None:
        """Write the figures of the epoch."""
        figures = {name: value for name, value in vars(epoch).items() if name != "weight_norms"}
        figures |= {f"weight_norm/{name}": norm for name, norm in epoch.weight_norms.items()}
        for name, value in figures.items():
            self._writer.add_scalar(name, value, epoch.epoch)
        self._writer.flush()
