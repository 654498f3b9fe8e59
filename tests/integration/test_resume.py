"""A training that is interrupted: what it keeps, and that it continues to the same weights."""

import errno
import os
import re
import resource
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from rich.console import Console

from export.bundle import versions
from export.bundle.manifest import SNAPSHOTS_FILE
from export.bundle.snapshots import Snapshots, write_snapshots
from export.settings import read_settings
from tests.support.bundles import REPOSITORY
from tests.support.trainings import (
    fitted,
    run_of,
    train,
    train_in_a_process,
    training_command,
    weights_hash,
)
from training.checkpoint import Checkpoint
from training.config import Recipe, TrainingSettings
from training.data import Data, load
from training.errors import CheckpointError
from training.train import train as train_here
from training.trainer import Trainer

EPOCHS, BATCH_IMAGES, HIDDEN = 100, 512, 16
ARGUMENTS = (
    *("--dataset", "digits", "--hidden", str(HIDDEN)),
    *("--epochs", str(EPOCHS), "--batch-images", str(BATCH_IMAGES)),
)
# A training waits when nobody reads what it prints: it can't end before it is interrupted.
PIPE_BYTES = 4096  # 40 epochs, and the reader may have taken as many: fewer than EPOCHS


@contextmanager
def training_that_runs(
    models_dir: Path, *arguments: str, after: str
) -> Iterator[subprocess.Popen[str]]:
    """Start a training; give it when it has printed a line with a pattern."""
    # A shell's background job, as these tests may be one, ignores the signal and passes that on.
    command = ["env", "--default-signal=INT", *training_command(*arguments)]
    with subprocess.Popen(
        [*command, "--models-dir", models_dir],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        pipesize=PIPE_BYTES,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as process:
        try:
            for line in process.stdout or ():
                if re.search(after, line):
                    break
            yield process
        finally:
            process.kill()


@pytest.fixture(scope="module")
def digits() -> Data:
    return load("digits", Path(), None)


class Unbroken(NamedTuple):
    """What a training that nothing interrupted ends with."""

    weights_hash: str
    snapshots: bytes  # the file


@pytest.fixture(scope="module")
def unbroken(digits: Data) -> Unbroken:
    """A training of this process."""
    trainer = fitted(digits, epochs=EPOCHS, batch_images=BATCH_IMAGES, hidden=(HIDDEN,))
    return Unbroken(
        run_of(trainer.average.folded(), digits).weights_sha256,
        write_snapshots(Snapshots(trainer.snapshots, EPOCHS)),
    )


def test_a_killed_training_resumes_to_the_same_weights(unbroken: Unbroken, tmp_path: Path) -> None:
    with training_that_runs(tmp_path, *ARGUMENTS, after="^    5 ") as process:
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert versions(tmp_path, "digits") == []
    done = train(*ARGUMENTS, "--models-dir", tmp_path, "--resume")
    assert done.returncode == 0, done.stderr
    continued = int(done.stdout.split("continues after epoch ")[1].split()[0])
    assert 4 <= continued < EPOCHS, "it was killed on its way"
    assert f"\n{continued + 1:>5} " in done.stdout
    assert f"\n{continued:>5} " not in done.stdout
    assert weights_hash(tmp_path, 1) == unbroken.weights_hash
    assert (tmp_path / "digits" / "1" / SNAPSHOTS_FILE).read_bytes() == unbroken.snapshots
    history = (tmp_path / "digits" / "1" / "history.jsonl").read_text()
    assert history.count("\n") == EPOCHS, "the history is whole"


def test_an_interrupt_keeps_the_last_checkpoint(unbroken: Unbroken, tmp_path: Path) -> None:
    with training_that_runs(tmp_path, *ARGUMENTS, after="starts learning") as process:
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted; nothing was published; --resume continues" in error
    assert "Traceback" not in error
    assert not list(tmp_path.rglob("*.onnx"))
    done = train(*ARGUMENTS, "--models-dir", tmp_path, "--resume")
    assert done.returncode == 0, done.stderr
    assert weights_hash(tmp_path, 1) == unbroken.weights_hash


def test_a_second_training_of_a_seed_is_refused(tmp_path: Path, digits: Data) -> None:
    arguments = ["--dataset", "digits", "--epochs", "1", "--models-dir", str(tmp_path)]
    trainer = fitted(digits)
    checkpoint = Checkpoint(tmp_path, trainer.recipe, digits)
    (tmp_path / "digits").mkdir()
    with checkpoint.held():
        checkpoint.save(trainer)
        before = checkpoint.path.read_bytes()
        with pytest.raises(CheckpointError, match="another training with seed 0 writes it now"):
            train_here(read_settings(TrainingSettings, arguments), Console(quiet=True))
    assert checkpoint.path.read_bytes() == before
    assert versions(tmp_path, "digits") == []


def test_a_checkpoint_is_locked_until_the_end(tmp_path: Path, digits: Data) -> None:
    (tmp_path / "digits").mkdir()
    one, same, other = (
        Checkpoint(tmp_path, Recipe(dataset="digits", seed=seed), digits) for seed in (0, 0, 1)
    )
    with one.held(), other.held():
        with (
            pytest.raises(CheckpointError, match="take another --seed or --models-dir"),
            same.held(),
        ):
            pass
        with pytest.raises(CheckpointError), same.held():
            pass
    with same.held():
        pass
    assert list((tmp_path / "digits").iterdir()) == []


def test_without_resume_a_checkpoint_is_not_read(
    tmp_path: Path,
) -> None:
    arguments = ("--dataset", "digits", "--epochs", "2", "--hidden", "4", "--models-dir", tmp_path)
    done = train(*arguments, "--resume")
    assert done.returncode == 0, done.stderr
    assert "no checkpoint to continue" in done.stdout
    data, recipe = load("digits", Path(), None), Recipe(dataset="digits", epochs=2, hidden=(4,))
    Checkpoint(tmp_path, recipe, data).save(fitted(data, batch_images=256, hidden=recipe.hidden))
    done = train(*arguments)
    assert done.returncode == 0, done.stderr
    assert "--resume would have continued it" in done.stdout
    assert weights_hash(tmp_path, 1) == weights_hash(tmp_path, 2)


def test_a_checkpoint_of_other_settings_is_refused_by_name(tmp_path: Path, digits: Data) -> None:
    (tmp_path / "digits").mkdir()
    trainer = fitted(digits)
    Checkpoint(tmp_path, trainer.recipe, digits).save(trainer)
    other = trainer.recipe.model_copy(update={"epochs": 9, "hidden": (64,)})
    with pytest.raises(CheckpointError) as refused:
        Checkpoint(tmp_path, other, digits).restore(Trainer(other, digits))
    for text in ("hidden [16] then, [64] now", "epochs 2 then, 9 now", "leave out --resume"):
        assert text in str(refused.value)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"\xff" * 4096])
def test_a_damaged_checkpoint_is_one_clear_error(
    tmp_path: Path, digits: Data, content: bytes
) -> None:
    (tmp_path / "digits").mkdir()
    checkpoint = Checkpoint(tmp_path, Recipe(dataset="digits"), digits)
    checkpoint.path.write_bytes(content)
    with pytest.raises(CheckpointError, match="can't be read"):
        checkpoint.restore(Trainer(checkpoint.recipe, digits))


@contextmanager
def full_disk(file_bytes: int) -> Iterator[None]:
    """Let this process write no longer file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_keeps_the_old_checkpoint(tmp_path: Path, digits: Data) -> None:
    """The limit of a file's size stands in for the disk: the write ends in the middle."""
    (tmp_path / "digits").mkdir()
    trainer = fitted(digits)
    checkpoint = Checkpoint(tmp_path, trainer.recipe, digits)
    checkpoint.save(trainer)
    before = checkpoint.path.read_bytes()
    with full_disk(len(before) // 2), pytest.raises(CheckpointError) as refused:
        checkpoint.save(trainer)
    assert os.strerror(errno.EFBIG) in str(refused.value)
    assert "rerun with --resume: it continues" in str(refused.value)
    assert checkpoint.path.read_bytes() == before
    assert [path.name for path in checkpoint.path.parent.iterdir()] == [checkpoint.path.name]


def test_a_full_disk_is_one_clear_error(tmp_path: Path) -> None:
    arguments = ("--dataset", "digits", "--epochs", "2", "--models-dir", tmp_path)
    done = train_in_a_process(*arguments, file_bytes=100_000)
    assert done.returncode == 1
    assert "can't be written: File too large" in done.stderr
    assert "nothing was published" in done.stderr
    assert "Traceback" not in done.stderr
    assert list((tmp_path / "digits").iterdir()) == []


def test_a_full_disk_at_publishing_loses_no_training(tmp_path: Path) -> None:
    """A small network's checkpoint fits under the limit, and the pictures do not."""
    arguments = ("--dataset", "digits", "--epochs", "2", "--hidden", "1", "--models-dir", tmp_path)
    with full_disk(35_000):
        done = train(*arguments)
    assert done.returncode == 1
    assert "can't be written: File too large" in done.stderr
    assert "rerun with --resume: it publishes" in done.stderr
    assert "Traceback" not in done.stderr
    left = [path.name for path in (tmp_path / "digits").iterdir()]
    assert left == [".checkpoint-0"]
    done = train(*arguments, "--resume")
    assert done.returncode == 0, done.stderr
    assert "continues after epoch 2" in done.stdout
    assert versions(tmp_path, "digits") == [1]
