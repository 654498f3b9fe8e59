"""From data to a published bundle."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

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
from training.evaluate import evaluate, score
from training.history import seconds_to
from training.memory import check_memory, out_of_memory_named
from training.progress import Callbacks, TensorBoard, Terminal
from training.publish import publish
from training.results import TrainingResult, best_result
from training.seeds import seeds_table
from training.trainer import Trainer, deterministic


def train(settings: TrainingSettings, console: Console) -> None:
    """Train with each seed; publish the best.

    Raises:
        TrainingError: the data, a checkpoint or this machine prevents it.
        ExportError: a runtime diverges from the weights.
        OSError: the models folder can't be written.
    """
    check_writable(settings.models_dir, settings.dataset)
    if settings.device == "cuda" and not torch.cuda.is_available():
        raise ConfigurationError("--device cuda: torch finds no GPU; --device cpu works here")
    data = _load(settings, console)
    check_memory(settings.recipe(settings.seed), data)
    seeds = range(settings.seed, settings.seed + settings.seeds)
    checkpoints = [Checkpoint(settings.models_dir, settings.recipe(seed), data) for seed in seeds]
    with ExitStack() as stack:
        for checkpoint in checkpoints:
            stack.enter_context(checkpoint.held())
        stack.enter_context(out_of_memory_named(settings))
        with deterministic(settings.threads):
            trainers = [_train(settings, data, checkpoint, console) for checkpoint in checkpoints]
            # Every choice is made by now, but that of the best by held-out images.
            results = [_evaluate(trainer, data) for trainer in trainers]
        best = best_result(results)
        if len(results) > 1:
            console.print(seeds_table(results))
        bundle = _publish(settings.models_dir, best, results, data)
        _print_published(bundle, best, console)
        for checkpoint in checkpoints:
            checkpoint.remove()


def _load(settings: TrainingSettings, console: Console) -> Data:
    with console.status(f"loading {settings.dataset}", spinner="line"):
        data = load(settings.dataset, settings.data_dir, settings.mirror, check=settings.check_data)
    console.print(
        f"{data.name}: {len(data.train):,} images to train, {len(data.held_out):,} held out, "
        f"{len(data.test):,} to test{'' if settings.check_data else '; not checked'}"
    )
    return data


def _train(
    settings: TrainingSettings, data: Data, checkpoint: Checkpoint, console: Console
) -> Trainer:
    """Return the trainer after all its epochs; after each one its state is saved."""
    trainer = Trainer(checkpoint.recipe, data)
    _resume(trainer, checkpoint, console, resume=settings.resume)
    terminal = Terminal(console, trainer)
    callbacks = Callbacks(terminal, *_tensorboard(settings, trainer.recipe.seed))
    with terminal.live():
        for epoch in trainer.train(on_step=callbacks.on_step):
            checkpoint.save(trainer)
            callbacks.on_epoch_end(epoch)
    return trainer


def _resume(trainer: Trainer, checkpoint: Checkpoint, console: Console, *, resume: bool) -> None:
    """Bring the trainer to the state of the checkpoint, if that is wanted and there is one."""
    path = printable(str(checkpoint.path))
    if resume and checkpoint.exists():
        checkpoint.restore(trainer)
        console.print(f"{path}: continues after epoch {len(trainer.epochs)}")
    elif resume:
        console.print(f"{path}: no checkpoint to continue; starts with epoch 1")
    elif checkpoint.exists():
        console.print(f"{path}: overwritten; --resume would have continued it")


def _tensorboard(settings: TrainingSettings, seed: int) -> list[TensorBoard]:
    return [TensorBoard(settings.tensorboard / f"seed-{seed}")] if settings.tensorboard else []


def _evaluate(trainer: Trainer, data: Data) -> TrainingResult:
    network = trainer.average.cpu().folded()
    return TrainingResult(
        recipe=trainer.recipe,
        epochs=tuple(trainer.epochs),
        network=network,
        held_out=score(network, data.held_out),
        test=evaluate(network, data.test),
        snapshots=trainer.snapshots,
    )


def _publish(
    models_dir: Path, best: TrainingResult, results: Sequence[TrainingResult], data: Data
) -> Bundle:
    try:
        return publish(models_dir, best, results, data)
    except OSError as error:
        raise TrainingError(
            f"{models_dir}: can't be written: {error.strerror or error}; nothing was "
            "published. Fix this, then rerun with --resume: it publishes without training again"
        ) from error


def _print_published(bundle: Bundle, result: TrainingResult, console: Console) -> None:
    manifest = bundle.manifest
    console.print(figures_table(r for r in manifest.parity if r.image_set == TEST_IMAGES))
    reached = {
        f"{accuracy:.0%}": seconds
        for accuracy in (0.98, 0.99)
        if (seconds := seconds_to(result.epochs, accuracy)) is not None
    }
    times = "".join(f", {seconds:.1f} s to {name}" for name, seconds in reached.items())
    console.print(
        f"Published {printable(str(bundle.path))}: "
        f"{manifest.metrics['test_accuracy']:.2%} of the test images right; "
        f"seed {result.recipe.seed}, {result.seconds:.1f} s of training{times}; "
        f"weights SHA-256 {result.weights_sha256}",
        soft_wrap=True,
    )
