"""Command line of the training package: `python -m training`."""

import sys
from collections.abc import Sequence

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from export.architecture import mlp
from export.errors import ExportError
from export.report import parity_table
from export.settings import read_settings
from training.config import TrainingSettings
from training.data import IMAGE_SIDE, Data, DatasetError, load_digits, load_mnist
from training.fit import Epoch, Fit
from training.model import NormalisedNetwork
from training.publish import publish
from training.record import HEADINGS, observation, table_row

HIDDEN_UNITS = 128


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, publish, and return the exit status."""
    settings = read_settings(TrainingSettings, arguments)
    console = Console(highlight=False)
    try:
        train(settings, console)
    except (DatasetError, ExportError, OSError) as error:
        print(f"python -m training: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("python -m training: interrupted; nothing was published", file=sys.stderr)
        return 130
    return 0


def train(settings: TrainingSettings, console: Console) -> None:
    """Run the way from data to bundle."""
    data = load(settings)
    console.print(
        f"{data.name}: {len(data.train):,} images to train, {len(data.held_out):,} held out, "
        f"{len(data.test):,} to test"
    )
    torch.manual_seed(settings.seed)  # the initial weights
    pixels = data.train.pixels()
    stages = mlp((IMAGE_SIDE, IMAGE_SIDE), HIDDEN_UNITS, len(data.labels))
    model = NormalisedNetwork(stages, pixels.mean().item(), pixels.std().item())
    fit = Fit(model, data, settings.epochs, settings.seed)
    epochs = run_with_table(fit, settings.epochs, console)
    bundle = publish(settings.models_dir, fit.model.folded(), data, epochs, settings.seed)
    console.print(parity_table(bundle.manifest.parity))
    console.print(
        f"Published {bundle.path}: {bundle.manifest.metrics['test_accuracy']:.2%} "
        f"of the test images right."
    )


def load(settings: TrainingSettings) -> Data:
    """Load the dataset that the settings name."""
    if settings.dataset == "digits":
        return load_digits(settings.seed)
    return load_mnist(settings.data_dir, settings.mirror, settings.seed)


def run_with_table(fit: Fit, count: int, console: Console) -> list[Epoch]:
    """Run all epochs under a progress bar, printing the table as they come."""
    epochs: list[Epoch] = []
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("training", total=count * fit.steps_per_epoch)
        console.print(HEADINGS, style="bold", soft_wrap=True)
        for epoch in fit.run(on_step=lambda: progress.advance(task)):
            console.print(table_row(epoch, observation(epochs, epoch)), soft_wrap=True)
            epochs.append(epoch)
    return epochs


if __name__ == "__main__":
    sys.exit(main())
