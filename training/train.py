"""The way from data to a published bundle."""

from collections.abc import Sequence
from contextlib import ExitStack

import torch
from rich.console import Console

from export.bundle import Bundle
from export.bundle.manifest import TEST_IMAGES
from export.bundle.publishing import check_writable
from export.output import printable
from export.parity.report import figures_table
from training.checkpoint import Checkpoint
from training.config import TrainingSettings
from training.data import Data, load
from training.errors import ConfigurationError, TrainingError
from training.evaluate import evaluate
from training.history import seconds_to
from training.memory import check_memory, out_of_memory_named
from training.progress import Callback, TensorBoard, Terminal
from training.publish import publish
from training.seeds import TrainingResult, best_run, seeds_table
from training.trainer import Trainer, deterministic


def train(settings: TrainingSettings, console: Console) -> None:
    """Load, trainer, publish; once for each seed, and the best is published.

    Raises:
        TrainingError: data, checkpoint or machine stand in the way.
        ExportError: a runtime diverges from the weights.
        OSError: the models folder can't be written.
    """
    check_writable(settings.models_dir, settings.dataset)
    if settings.device == "cuda" and not torch.cuda.is_available():
        raise ConfigurationError("--device cuda: torch finds no GPU; --device cpu works here")
    with console.status(f"loading {settings.dataset}", spinner="line"):
        data = load(settings.dataset, settings.data_dir, settings.mirror, check=settings.check_data)
    console.print(
        f"{data.name}: {len(data.train):,} images to train, {len(data.held_out):,} held out, "
        f"{len(data.test):,} to test{'' if settings.check_data else '; not checked'}"
    )
    check_memory(settings.recipe(settings.seed), data)
    seeds = range(settings.seed, settings.seed + settings.seeds)
    checkpoints = [Checkpoint(settings.models_dir, settings.recipe(seed), data) for seed in seeds]
    with ExitStack() as stack:
        for checkpoint in checkpoints:
            stack.enter_context(checkpoint.held())
        stack.enter_context(out_of_memory_named(settings))
        _train(settings, data, checkpoints, console)


def _train(
    settings: TrainingSettings, data: Data, checkpoints: Sequence[Checkpoint], console: Console
) -> None:
    """Trainer and publish, on data that are there and with checkpoints that are ours."""
    with deterministic(settings.threads):
        trainers = [_trainer(settings, data, checkpoint, console) for checkpoint in checkpoints]
        # The test images are looked at here, when every choice is made but that by held-out images.
        runs = [_result_of(trainer, data) for trainer in trainers]
    if len(runs) > 1:
        console.print(seeds_table(runs))
    _print_published(_publish(settings, runs, data), best_run(runs), console)
    for checkpoint in checkpoints:
        checkpoint.remove()


def _trainer(
    settings: TrainingSettings, data: Data, checkpoint: Checkpoint, console: Console
) -> Trainer:
    """Return the trainer after all its epochs."""
    trainer, path = Trainer(checkpoint.recipe, data), printable(str(checkpoint.path))
    if settings.resume and checkpoint.exists():
        checkpoint.restore(trainer)
        console.print(f"{path}: continues after epoch {len(trainer.epochs)}")
    elif settings.resume:
        console.print(f"{path}: no checkpoint to continue; starts with epoch 1")
    elif checkpoint.exists():
        console.print(f"{path}: overwritten; --resume would have continued it")
    terminal = Terminal(console, trainer)
    callbacks: list[Callback] = [terminal]
    if settings.tensorboard:
        callbacks.append(TensorBoard(settings.tensorboard / f"seed-{trainer.recipe.seed}"))

    def step() -> None:
        for callback in callbacks:
            callback.step()

    with terminal.shown():
        for _ in trainer.run(on_step=step):
            checkpoint.save(trainer)
            for callback in callbacks:
                callback.epoch(trainer.epochs)
    return trainer


def _result_of(trainer: Trainer, data: Data) -> TrainingResult:
    network = trainer.average.cpu().folded()
    return TrainingResult(
        recipe=trainer.recipe,
        epochs=tuple(trainer.epochs),
        network=network,
        held_out=evaluate(network, data.held_out),
        test=evaluate(network, data.test),
    )


def _publish(settings: TrainingSettings, runs: Sequence[TrainingResult], data: Data) -> Bundle:
    try:
        return publish(settings.models_dir, runs, data)
    except OSError as error:
        raise TrainingError(
            f"{settings.models_dir}: can't be written: {error.strerror or error}; nothing was "
            "published. Fix this, then rerun with --resume: it publishes without training again"
        ) from error


def _print_published(bundle: Bundle, run: TrainingResult, console: Console) -> None:
    manifest = bundle.manifest
    console.print(figures_table(r for r in manifest.parity if r.image_set == TEST_IMAGES))
    reached = {
        f"{accuracy:.0%}": seconds
        for accuracy in (0.98, 0.99)
        if (seconds := seconds_to(run.epochs, accuracy)) is not None
    }
    times = "".join(f", {seconds:.1f} s to {name}" for name, seconds in reached.items())
    console.print(
        f"Published {printable(str(bundle.path))}: "
        f"{manifest.metrics['test_accuracy']:.2%} of the test images right; "
        f"seed {run.recipe.seed}, {run.seconds:.1f} s of training{times}; "
        f"weights SHA-256 {run.weights_sha256}",
        soft_wrap=True,
    )
