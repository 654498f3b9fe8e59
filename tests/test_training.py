"""Training: from data to a published bundle, by the real command."""

import gzip
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from PIL import Image

from export.architecture import Runtime, Stage, mlp
from export.bundle import open_bundle, versions
from export.errors import ParityError
from export.network import Network
from export.runners import open_runner
from export.settings import read_settings
from export.writers import write_all, write_pt2
from tests.bundles import REPOSITORY, random_images
from training.augment import distort
from training.config import TrainingSettings
from training.data import Data, load_digits
from training.fit import Epoch, Fit, accuracy
from training.model import NormalisedNetwork
from training.publish import publish
from training.record import observation

STAGES = mlp((28, 28), 128, 10)


def train(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-m", "training", *arguments]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A models folder with digits trained for three epochs, and what the command printed."""
    models_dir = tmp_path_factory.mktemp("trained")
    done = train("--dataset", "digits", "--epochs", "3", "--models-dir", models_dir)
    assert done.returncode == 0, done.stderr
    return models_dir, done.stdout


def test_the_command_prints_the_table_and_publishes_a_whole_bundle(
    trained: tuple[Path, str],
) -> None:
    models_dir, printed = trained
    for heading in ("epoch", "loss", "accuracy", "rate", "seconds", "observation"):
        assert heading in printed
    assert len(re.findall(r"^ +[123]  +\d\.\d{4} +\d+\.\d\d%", printed, re.MULTILINE)) == 3
    assert "starts learning, loss high" in printed
    bundle = open_bundle(models_dir / "digits" / "1")
    bundle.verify_files()
    assert {file.name for file in bundle.manifest.files} == {
        "MODEL_CARD.md",
        "history.jsonl",
        "history.png",
        "model.onnx",
        "model.pt2",
        "model.ts",
        "trace.onnx",
        "vectors.npz",
        "weights.safetensors",
    }
    recorded = {(record.runtime, record.image_set) for record in bundle.manifest.parity}
    assert recorded == set(product(get_args(Runtime), ("test", "synthetic")))


def test_the_history_has_an_object_for_each_epoch_and_a_picture(
    trained: tuple[Path, str],
) -> None:
    folder = trained[0] / "digits" / "1"
    history = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    assert [epoch["epoch"] for epoch in history] == [1, 2, 3]
    assert history[-1]["loss"] < history[0]["loss"]
    expected = {"epoch", "loss", "accuracy", "learning_rate", "seconds", "observation"}
    assert set(history[0]) == expected
    with Image.open(folder / "history.png") as picture:
        assert picture.size[0] > 800
        assert len(set(picture.convert("L").tobytes())) > 50, "an empty picture"
    card = (folder / "MODEL_CARD.md").read_text()
    assert "MLP 784-128-10" in card


def test_the_accuracy_of_the_manifest_is_that_of_the_exported_model(
    trained: tuple[Path, str],
) -> None:
    bundle = open_bundle(trained[0] / "digits" / "1")
    test = load_digits(seed=0).test
    logits = open_runner(bundle, "onnx", "cpu").predict(test.pixels().numpy())
    share = float((logits.argmax(axis=1) == test.labels.numpy()).mean())
    assert share == bundle.manifest.metrics["test_accuracy"]
    assert share > 0.5


def weights_hash(models_dir: Path, version: int) -> str:
    manifest = open_bundle(models_dir / "digits" / str(version)).manifest
    return next(file.sha256 for file in manifest.files if file.name == "weights.safetensors")


def test_a_seed_gives_the_same_weights_and_another_seed_others(trained: tuple[Path, str]) -> None:
    models_dir, _ = trained
    arguments = ("--dataset", "digits", "--epochs", "3", "--models-dir", models_dir)
    assert train(*arguments).returncode == 0
    assert train(*arguments, "--seed", "1").returncode == 0
    assert weights_hash(models_dir, 1) == weights_hash(models_dir, 2) != weights_hash(models_dir, 3)
    assert open_bundle(models_dir / "digits" / "3").manifest.seed == 1


def test_mnist_reaches_97_percent_in_3_epochs_from_the_mirror(tmp_path: Path, mnist: Data) -> None:
    assert len(mnist.train) == 55_000
    done = train("--epochs", "3", "--models-dir", tmp_path)
    assert done.returncode == 0, done.stderr
    manifest = open_bundle(tmp_path / "mnist" / "1").manifest
    assert manifest.metrics["test_accuracy"] >= 0.97
    assert manifest.dataset.sha256 == mnist.sha256
    assert (manifest.dataset.train_images, manifest.dataset.held_out_images) == (55_000, 5_000)


@pytest.fixture(scope="module")
def mirror(mnist: Data, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mirror of MNIST: the four original files, as the mnist fixture downloaded them."""
    assert mnist.name == "mnist"
    folder = tmp_path_factory.mktemp("mirror")
    for path in (read_settings(TrainingSettings, []).data_dir / "MNIST" / "raw").glob("*.gz"):
        shutil.copy(path, folder)
    assert len(list(folder.iterdir())) == 4
    return folder


def test_a_mirror_is_downloaded_checked_and_kept(mirror: Path, tmp_path: Path) -> None:
    arguments = ("--epochs", "1", "--models-dir", tmp_path / "models", "--data-dir", tmp_path)
    done = train(*arguments, "--mirror", mirror.as_uri())
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte").is_file()
    done = train(*arguments, "--mirror", "file:///nowhere")
    assert done.returncode == 0, "what lies in --data-dir needs no mirror"


@pytest.mark.parametrize("fault", ["missing", "corrupt"])
def test_a_mirror_without_the_right_files_is_one_clear_error(
    mirror: Path, tmp_path: Path, fault: str
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(mirror, broken)
    if fault == "missing":
        (broken / "t10k-labels-idx1-ubyte.gz").unlink()
    else:
        (broken / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(b"not labels"))
    done = train("--data-dir", tmp_path / "data", "--mirror", broken.as_uri())
    assert done.returncode == 1
    assert "t10k-labels-idx1-ubyte.gz" in done.stderr
    for way_out in ("--mirror URL", "--dataset digits"):
        assert way_out in done.stderr
    assert "Traceback" not in done.stderr


def test_a_folder_that_can_not_be_written_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "models").write_text("a file where the folder should be")
    done = train("--dataset", "digits", "--epochs", "1", "--models-dir", tmp_path / "models")
    assert done.returncode == 1
    assert done.stdout == "", "before it trains"
    assert str(tmp_path / "models") in done.stderr
    assert "Traceback" not in done.stderr


def test_a_runtime_that_departs_keeps_the_bundle_from_being_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_wrongly(
        stages: Sequence[Stage], weights: dict[str, np.ndarray], low: float, high: float
    ) -> dict[str, bytes]:
        wrong = {**weights, "linear2.bias": weights["linear2.bias"] + np.float32(1)}
        right = write_all(stages, weights, low, high)
        return {**right, "model.pt2": write_pt2(stages, wrong)}

    network, data = Network(STAGES), load_digits(seed=0)
    publish(tmp_path, network, data, [epoch(1, 1.0, 0.5)], seed=0)
    assert versions(tmp_path, "digits") == [1]
    monkeypatch.setattr("training.publish.write_all", write_wrongly)
    with pytest.raises(ParityError, match="pt2 cpu float32: stage 'linear2'"):
        publish(tmp_path, network, data, [epoch(1, 1.0, 0.5)], seed=0)
    assert [entry.name for entry in (tmp_path / "digits").iterdir()] == ["1"]


def test_a_decision_that_is_not_certain_does_not_keep_it_from_being_published(
    tmp_path: Path,
) -> None:
    """All logits are alike: that is the model's affair, and its runtimes agree on it."""
    network = Network(STAGES)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    bundle = publish(tmp_path, network, load_digits(seed=0), [epoch(1, 1.0, 0.5)], seed=0)
    assert {record.certified_share for record in bundle.manifest.parity} == {0.0}


def test_an_interrupt_ends_training_and_publishes_nothing(tmp_path: Path) -> None:
    # A shell's background job, as these tests may be one, ignores the signal and passes that on.
    command = ["env", "--default-signal=INT", sys.executable, "-m", "training"]
    command += ["--dataset", "digits", "--epochs", "100000"]
    with subprocess.Popen(
        [*command, "--models-dir", tmp_path],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as process:
        for line in process.stdout or ():
            if "starts learning" in line:
                break
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted; nothing was published" in error
    assert not list(tmp_path.rglob("*.onnx"))


def test_folding_the_normalisation_keeps_the_function() -> None:
    torch.manual_seed(3)
    model = NormalisedNetwork(STAGES, mean=0.13, standard_deviation=0.31)
    images = torch.from_numpy(random_images(50, (28, 28)))
    folded = model.folded()
    expected = model.double()(images.double())
    # Rounding the folded weights to float32 moves a logit by parts in 10 million.
    torch.testing.assert_close(folded.double()(images.double()), expected, rtol=0, atol=1e-6)
    weight = "layers.linear1.weight"
    assert not torch.equal(folded.state_dict()[weight], model.network.state_dict()[weight])


def test_the_network_has_101_770_parameters() -> None:
    model = NormalisedNetwork(STAGES, 0, 1)
    assert sum(parameter.numel() for parameter in model.parameters()) == 101_770


def test_digits_have_the_form_of_mnist() -> None:
    data = load_digits(seed=0)
    assert data.train.images.shape[1:] == (28, 28)
    assert data.train.images.dtype == torch.uint8
    assert data.train.images.max() > 250
    assert not data.train.images[:, :4].any(), "the border must be dark"
    assert len(data.train) + len(data.held_out) + len(data.test) == 1797


def test_distortion_is_mild_seeded_and_another_for_each_image(mnist: Data) -> None:
    images = mnist.train.pixels()[:1].expand(64, -1, -1)
    distorted = distort(images, torch.Generator().manual_seed(1))
    again = distort(images, torch.Generator().manual_seed(1))
    assert torch.equal(distorted, again)
    assert not torch.equal(distorted[0], distorted[1])
    assert float(distorted.min()) >= 0
    assert float(distorted.max()) <= 1
    rows, columns = torch.meshgrid(torch.arange(28.0), torch.arange(28.0), indexing="ij")
    for axis in (rows, columns):
        centre = (images * axis).sum((1, 2)) / images.sum((1, 2))
        moved = (distorted * axis).sum((1, 2)) / distorted.sum((1, 2))
        assert float((moved - centre).abs().max()) < 3
        assert float((moved - centre).abs().mean()) > 0.1


def test_every_training_image_is_distorted_in_every_epoch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    distorted: list[int] = []

    def counted(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        distorted.append(len(images))
        return distort(images, generator)

    monkeypatch.setattr("training.fit.distort", counted)
    data = load_digits(seed=0)
    fit = Fit(NormalisedNetwork(STAGES, 0.1, 0.3), data, epochs=2, seed=0)
    assert len(list(fit.run(on_step=lambda: None))) == 2
    assert sum(distorted) == 2 * len(data.train)


def test_the_seed_chooses_the_held_out_images_and_leaves_the_test_images() -> None:
    one, same, other = load_digits(seed=1), load_digits(seed=1), load_digits(seed=2)
    assert torch.equal(one.held_out.images, same.held_out.images)
    assert not torch.equal(one.held_out.images, other.held_out.images)
    assert torch.equal(one.test.images, other.test.images)
    assert one.sha256 == other.sha256


def test_the_learning_rate_rises_and_falls_to_nothing() -> None:
    data = load_digits(seed=0)
    fit = Fit(NormalisedNetwork(STAGES, 0.1, 0.3), data, epochs=20, seed=0)
    rates = [epoch.learning_rate for epoch in fit.run(on_step=lambda: None)]
    assert rates[0] < rates[1]
    assert rates[2:] == sorted(rates[2:], reverse=True)
    assert rates[-1] < 1e-9
    assert accuracy(fit.model, data.test) > 0.9


def epoch(number: int, loss: float, share: float) -> Epoch:
    return Epoch(number, loss, share, learning_rate=0.001, seconds=1.0)


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        ([], (1.2, 0.55), "starts learning, loss high"),
        ([], (0.05, 0.98), "starts learning, loss low"),
        ([(1.2, 0.55)], (0.8, 0.72), "improves fast, loss falls"),
        ([(0.5, 0.97)], (0.4, 0.972), "improves, loss falls"),
        ([(0.5, 0.97)], (0.6, 0.9702), "improves slightly, loss rises"),
        ([(0.5, 0.98)], (0.4, 0.9798), "converges, loss falls"),
        ([(0.5, 0.99), (0.4, 0.98)], (0.3, 0.985), "below its best of 99.00%, loss falls"),
    ],
)
def test_observations_say_what_the_figures_say(
    before: Sequence[tuple[float, float]], now: tuple[float, float], expected: str
) -> None:
    earlier = [epoch(index, *figures) for index, figures in enumerate(before, start=1)]
    assert observation(earlier, epoch(9, *now)) == expected


def test_the_test_split_is_the_original_one_and_never_trained_on(mnist: Data) -> None:
    assert mnist.test.labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    held_out = {image.tobytes() for image in mnist.held_out.images.numpy()}
    train_images = {image.tobytes() for image in mnist.train.images.numpy()}
    test_images = {image.tobytes() for image in mnist.test.images.numpy()}
    assert not test_images & (train_images | held_out)
    assert not train_images & held_out
    assert np.bincount(mnist.held_out.labels.numpy()).min() > 400
