"""The way from data to a published bundle."""

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from export.architecture import mlp
from export.bundle import check_writable
from export.manifest import TEST_IMAGES
from export.report import figures_table
from training.config import TrainingSettings
from training.data import IMAGE_SIDE, Data, load_digits, load_mnist
from training.fit import Epoch, Fit
from training.model import NormalisedNetwork
from training.publish import publish
from training.record import HEADINGS, observation, table_row

HIDDEN_UNITS = 128


def train(settings: TrainingSettings, console: Console) -> None:
    """Load, fit, publish.

    Raises:
        DatasetError: the dataset can't be had.
        ExportError: a runtime departs from the weights.
        OSError: the models folder can't be written.
    """
    check_writable(settings.models_dir, settings.dataset)
    data = _load(settings)
    console.print(
        f"{data.name}: {len(data.train):,} images to train, {len(data.held_out):,} held out, "
        f"{len(data.test):,} to test"
    )
    torch.manual_seed(settings.seed)  # the initial weights
    pixels = data.train.pixels()
    stages = mlp((IMAGE_SIDE, IMAGE_SIDE), HIDDEN_UNITS, len(data.labels))
    model = NormalisedNetwork(stages, pixels.mean().item(), pixels.std().item())
    fit = Fit(model, data, settings.epochs, settings.seed)
    epochs = _run_with_table(fit, settings.epochs, console)
    bundle = publish(settings.models_dir, fit.model.folded(), data, epochs, settings.seed)
    console.print(figures_table(r for r in bundle.manifest.parity if r.image_set == TEST_IMAGES))
    console.print(
        f"Published {bundle.path}: {bundle.manifest.metrics['test_accuracy']:.2%} "
        f"of the test images right."
    )


def _load(settings: TrainingSettings) -> Data:
    if settings.dataset == "digits":
        return load_digits(settings.seed)
    return load_mnist(settings.data_dir, settings.mirror, settings.seed)


def _run_with_table(fit: Fit, count: int, console: Console) -> list[Epoch]:
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
