"""Training: from data to a published bundle, by the real command."""

import gzip
import hashlib
import json
import re
import shutil
import struct
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from rich.console import Console
from torchvision import datasets

from export.architecture import Runtime, Stage, mlp
from export.bundle import open_bundle, versions
from export.bundle.manifest import SNAPSHOTS_FILE
from export.bundle.record import read_record
from export.bundle.snapshots import half_precision
from export.bundle.weights import read_weights
from export.errors import ParityError
from export.network import Network
from export.runtimes import open_runner
from export.settings import read_settings
from export.writers import write_all, write_pt2
from forward_client import ForwardClient
from tests.support.bundles import MODELS_DIR
from tests.support.servers import start_server
from tests.support.trainings import run_of, train, train_in_a_process, weights_hash
from training.config import Recipe, TrainingSettings
from training.data import FASHION_LABELS, Data, load
from training.errors import DatasetError
from training.history import Epoch
from training.publish import publish
from training.train import train as train_here
from training.trainer import Trainer

pytestmark = pytest.mark.one_transport

STAGES = mlp((28, 28), [16], 10)
# A small network: what is written of it is compared and drawn in a fraction of the time.
ARGUMENTS = (
    *("--dataset", "digits", "--epochs", "3"),
    *("--hidden", "24", "--batch-images", "128"),
)


@pytest.fixture(scope="module")
def digits() -> Data:
    return load("digits", Path(), None)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A models folder with digits trained for three epochs, and what the command printed."""
    models_dir = tmp_path_factory.mktemp("trained")
    done = train_in_a_process(*ARGUMENTS, "--models-dir", models_dir)
    assert (done.returncode, done.stderr) == (0, "")
    return models_dir, done.stdout


def test_training_prints_epochs_and_publishes_a_bundle(
    trained: tuple[Path, str],
) -> None:
    models_dir, printed = trained
    for heading in ("epoch", "loss", "accuracy", "rate", "gradient", "dead", "observation"):
        assert heading in printed
    assert len(re.findall(r"^ +[123]  +\d\.\d{4} +\d+\.\d\d%", printed, re.MULTILINE)) == 3
    assert "starts learning, loss high" in printed
    assert "error on held-out images" in printed
    bundle = open_bundle(models_dir / "digits" / "1")
    bundle.verify_files()
    assert {file.name for file in bundle.manifest.files} == {
        "MODEL_CARD.md",
        "drift_reference.json",
        "evaluation.png",
        "history.jsonl",
        "history.png",
        "interventions.onnx",
        "model.onnx",
        "model.pt2",
        "model.ts",
        "recipe.toml",
        "snapshots.safetensors",
        "trace.onnx",
        "vectors.npz",
        "weights.png",
        "weights.safetensors",
    }
    recorded = {(record.runtime, record.image_set) for record in bundle.manifest.parity}
    assert recorded == set(product(get_args(Runtime), ("test", "synthetic")))
    assert weights_hash(models_dir, 1) in printed
    left = {path.name for path in (models_dir / "digits").iterdir()}
    assert left == {"1"}, "the checkpoint goes when the bundle is there"


def test_the_history_has_an_object_for_each_epoch(trained: tuple[Path, str]) -> None:
    folder = trained[0] / "digits" / "1"
    history = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    assert [epoch["epoch"] for epoch in history] == [1, 2, 3]
    assert history[-1]["train_loss"] < history[0]["train_loss"]
    assert set(history[0]) == {
        "epoch",
        "train_loss",
        "train_accuracy",
        "held_out_loss",
        "held_out_accuracy",
        "learning_rate",
        "augmentation",
        "gradient_norm",
        "dead_units",
        "weight_norms",
        "seconds",
        "observation",
    }


def test_the_bundle_has_snapshots_of_its_epochs(trained: tuple[Path, str]) -> None:
    bundle = open_bundle(trained[0] / "digits" / "1")
    epochs, snapshots = read_record(bundle)
    assert [each.epoch for each in epochs] == [1, 2, 3]
    assert snapshots
    assert (list(snapshots.by_epoch), snapshots.served_epoch) == ([0, 1, 2, 3], 3)
    for name, array in half_precision(read_weights(bundle)).items():
        np.testing.assert_array_equal(snapshots.by_epoch[3][name], array)
        assert not np.array_equal(snapshots.by_epoch[2][name], array)
    card = " ".join((bundle.path / "MODEL_CARD.md").read_text().split())
    assert f"`{SNAPSHOTS_FILE}`: the weights in half precision after the epochs 0, 1, 2, 3;" in card


def test_the_model_card_has_recipe_and_limits(trained: tuple[Path, str]) -> None:
    bundle = open_bundle(trained[0] / "digits" / "1")
    card = (bundle.path / "MODEL_CARD.md").read_text()
    metrics, hardware = bundle.manifest.metrics, bundle.manifest.hardware
    expected = [
        "MLP 784-24-10",
        bundle.manifest.dataset.sha256,
        weights_hash(trained[0], 1),
        f"{metrics['test_accuracy']:.2%}",
        f"calibration error: {metrics['test_calibration_error']:.2%}",
        hardware["processor"],
        "| shifted, pixels | 0 | 1 |",
        "| rotated, degrees |",
        "| noisy, ",
        "Most often confused",
    ]
    for text in expected:
        assert text in card
    for picture in re.findall(r"\]\((\w+\.png)\)", card):
        assert (bundle.path / picture).is_file()
    assert "Over seeds" not in card


def test_the_manifests_accuracy_is_the_exported_models(
    trained: tuple[Path, str], digits: Data
) -> None:
    bundle = open_bundle(trained[0] / "digits" / "1")
    logits = open_runner(bundle, "onnx", "cpu").predict(digits.test.pixels().numpy())
    share = float((logits.argmax(axis=1) == digits.test.labels.numpy()).mean())
    assert share == bundle.manifest.metrics["test_accuracy"]
    assert share > 0.5


def test_another_seed_gives_other_weights(trained: tuple[Path, str]) -> None:
    """The same seed gives the same ones: of a recipe, and of several seeds, in the tests below."""
    models_dir, _ = trained
    assert train(*ARGUMENTS, "--models-dir", models_dir, "--seed", "1").returncode == 0
    assert weights_hash(models_dir, 1) != weights_hash(models_dir, 2)
    assert open_bundle(models_dir / "digits" / "2").manifest.seed == 1


def test_a_recipe_reproduces_the_weights(trained: tuple[Path, str], tmp_path: Path) -> None:
    models_dir, _ = trained
    recipe = models_dir / "digits" / "1" / "recipe.toml"
    done = train("--config", recipe, "--models-dir", tmp_path)
    assert done.returncode == 0, done.stderr
    assert weights_hash(tmp_path, 1) == weights_hash(models_dir, 1)
    assert (tmp_path / "digits" / "1" / "recipe.toml").read_text() == recipe.read_text()


def test_seeds_publishes_the_best_on_held_out_images(
    trained: tuple[Path, str], tmp_path: Path
) -> None:
    done = train(*ARGUMENTS, "--models-dir", tmp_path, "--seeds", "3")
    assert done.returncode == 0, done.stderr
    rows = re.findall(r"^ ([012]) +(\d+\.\d\d)% +(\d+\.\d\d)% .* (\w{8}) *$", done.stdout, re.M)
    assert [row[0] for row in rows] == ["0", "1", "2"]
    assert rows[0][3] == weights_hash(trained[0], 1)[:8], "as if it were trained alone"
    for label in ("mean", "deviation", "95% interval"):
        assert re.search(rf"^ {label} ", done.stdout, re.M)
    manifest = open_bundle(tmp_path / "digits" / "1").manifest
    chosen = next(row for row in rows if row[0] == str(manifest.seed))
    assert float(chosen[1]) == max(float(row[1]) for row in rows)
    card = (tmp_path / "digits" / "1" / "MODEL_CARD.md").read_text()
    assert "Over seeds" in card
    for row in rows:
        assert f"| {row[0]} | {row[1]}% | {row[2]}% |" in card


def test_any_hidden_layers_are_exported_and_served(tmp_path: Path) -> None:
    arguments = ("--dataset", "digits", "--epochs", "1", "--models-dir", tmp_path)
    done = train(*arguments, "--hidden", "24,12")
    assert done.returncode == 0, done.stderr
    bundle = open_bundle(tmp_path / "digits" / "1")
    names = ["input", "flatten", "linear1", "relu1", "linear2", "relu2", "linear3", "output"]
    assert [stage.name for stage in bundle.manifest.stages] == names
    assert bundle.manifest.architecture == "MLP 784-24-12-10"
    image = np.zeros((28, 28), np.uint8)
    with (
        start_server("--models-dir", str(tmp_path), "--model", "digits") as server,
        ForwardClient(server.address, timeout_seconds=60) as client,
    ):
        traced = client.trace(image)
    assert [stage.name for stage in traced.stages] == names
    expected = open_runner(bundle, "eager", "cpu").predict(np.zeros((1, 28, 28), np.float32))
    np.testing.assert_allclose(traced.logits, expected, rtol=0, atol=1e-5)


def test_the_threads_of_the_settings_compute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    original = Trainer.train

    def watched(trainer: Trainer, on_step: Callable[[], None]) -> Iterator[Epoch]:
        seen.append(torch.get_num_threads())
        return original(trainer, on_step)

    monkeypatch.setattr(Trainer, "train", watched)
    arguments = ["--dataset", "digits", "--epochs", "1", "--hidden", "4", "--threads", "3"]
    settings = read_settings(TrainingSettings, [*arguments, "--models-dir", str(tmp_path)])
    train_here(settings, Console(quiet=True))
    assert seen == [3]
    assert "threads = 3" in (tmp_path / "digits" / "1" / "recipe.toml").read_text()


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_gpu_that_is_not_there_is_one_clear_error(tmp_path: Path) -> None:
    done = train("--dataset", "digits", "--device", "cuda", "--models-dir", tmp_path)
    assert done.returncode == 1
    assert "--device cuda: torch finds no GPU" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture(scope="module")
def mirror(mnist: Data, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mirror of MNIST: the four original files, as the mnist fixture downloaded them."""
    assert mnist.name == "mnist"
    folder = tmp_path_factory.mktemp("mirror")
    for path in (read_settings(TrainingSettings, []).data_dir / "MNIST" / "raw").glob("*.gz"):
        shutil.copy(path, folder)
    assert len(list(folder.iterdir())) == 4
    return folder


@pytest.fixture(scope="module")
def downloaded(mirror: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with MNIST from the mirror, and under it a model that was trained on it."""
    folder = tmp_path_factory.mktemp("downloaded")
    arguments = ("--epochs", "3", "--data-dir", folder, "--models-dir", folder / "models")
    done = train(*arguments, "--mirror", mirror.as_uri())
    assert done.returncode == 0, done.stderr
    return folder


def test_mnist_reaches_97_percent_in_3_epochs_from_a_mirror(downloaded: Path, mnist: Data) -> None:
    assert len(mnist.train) == 55_000
    manifest = open_bundle(downloaded / "models" / "mnist" / "1").manifest
    assert manifest.metrics["test_accuracy"] >= 0.97
    assert manifest.dataset.sha256 == mnist.sha256
    assert (manifest.dataset.train_images, manifest.dataset.held_out_images) == (55_000, 5_000)


def test_what_was_downloaded_once_needs_no_mirror(downloaded: Path, mnist: Data) -> None:
    assert (downloaded / "MNIST" / "raw" / "train-images-idx3-ubyte").is_file()
    assert load("mnist", downloaded, "file:///nowhere").sha256 == mnist.sha256


@pytest.mark.parametrize("fault", ["missing", "corrupt"])
@pytest.mark.parametrize("dataset", ["mnist", "fashion-mnist"])
def test_a_wrong_mirror_is_one_clear_error(
    mirror: Path, tmp_path: Path, fault: str, dataset: str
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(mirror, broken)
    # MNIST's own files are the wrong ones for Fashion-MNIST, under the same names.
    named = "t10k-labels-idx1-ubyte.gz" if dataset == "mnist" else "train-images-idx3-ubyte.gz"
    if fault == "missing":
        (broken / named).unlink()
    elif dataset == "mnist":
        (broken / named).write_bytes(gzip.compress(b"not labels"))
    arguments = ("--dataset", dataset, "--data-dir", tmp_path / "data", "--models-dir", tmp_path)
    done = train(*arguments, "--mirror", broken.as_uri())
    assert done.returncode == 1
    assert named in done.stderr
    for text in (f"{dataset} is not in", "--mirror URL", "--dataset digits"):
        assert text in done.stderr
    assert "Traceback" not in done.stderr


def idx_file(array: np.ndarray) -> bytes:
    """Return uint8 values in MNIST's file format, gzipped."""
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    return gzip.compress(header + array.tobytes())


def test_fashion_mnist_comes_with_its_own_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real download and its checks, of files made here, for the real ones are not at hand."""
    random = np.random.default_rng(0)
    arrays = {
        "train-images-idx3-ubyte.gz": random.integers(0, 256, (24, 28, 28), np.uint8),
        "train-labels-idx1-ubyte.gz": random.integers(0, 10, 24).astype(np.uint8),
        "t10k-images-idx3-ubyte.gz": random.integers(0, 256, (6, 28, 28), np.uint8),
        "t10k-labels-idx1-ubyte.gz": random.integers(0, 10, 6).astype(np.uint8),
    }
    resources = []
    for name, array in arrays.items():
        content = idx_file(array)
        (tmp_path / name).write_bytes(content)
        resources.append((name, hashlib.md5(content, usedforsecurity=False).hexdigest()))
    assert [name for name, _ in datasets.FashionMNIST.resources] == list(arrays)
    monkeypatch.setattr(datasets.FashionMNIST, "resources", resources)
    data = load("fashion-mnist", tmp_path / "data", tmp_path.as_uri())
    assert (data.name, data.labels) == ("fashion-mnist", FASHION_LABELS)
    assert (len(data.train), len(data.held_out), len(data.test)) == (22, 2, 6)
    together = torch.cat([data.train.images, data.held_out.images]).numpy()
    assert np.array_equal(together, arrays["train-images-idx3-ubyte.gz"])
    assert np.array_equal(data.test.labels.numpy(), arrays["t10k-labels-idx1-ubyte.gz"])
    torch.manual_seed(0)
    result = run_of(Network(STAGES), data)
    bundle = publish(tmp_path, result, [result], data)
    assert bundle.manifest.labels[9] == "Ankle boot"
    with pytest.raises(DatasetError, match="fashion-mnist is not in"):
        load("fashion-mnist", tmp_path / "empty", "file:///nowhere")


def test_an_unwritable_folder_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "models").write_text("a file where the folder should be")
    done = train("--dataset", "digits", "--epochs", "1", "--models-dir", tmp_path / "models")
    assert done.returncode == 1
    assert done.stdout == "", "before it trains"
    assert str(tmp_path / "models") in done.stderr
    assert "Traceback" not in done.stderr


def test_a_diverging_runtime_prevents_publishing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, digits: Data
) -> None:
    def write_wrongly(
        stages: Sequence[Stage], weights: dict[str, np.ndarray], low: float, high: float
    ) -> dict[str, bytes]:
        wrong = {**weights, "linear2.bias": weights["linear2.bias"] + np.float32(1)}
        right = write_all(stages, weights, low, high)
        return {**right, "model.pt2": write_pt2(stages, wrong)}

    result = run_of(Network(STAGES), digits)
    publish(tmp_path, result, [result], digits)
    assert versions(tmp_path, "digits") == [1]
    monkeypatch.setattr("training.publish.write_all", write_wrongly)
    with pytest.raises(ParityError, match="pt2 cpu float32: stage 'linear2'"):
        publish(tmp_path, result, [result], digits)
    assert [entry.name for entry in (tmp_path / "digits").iterdir()] == ["1"]


def test_an_uncertified_decision_does_not_prevent_publishing(tmp_path: Path, digits: Data) -> None:
    """All logits are alike: that is the model's affair, and its runtimes agree on it."""
    network = Network(STAGES)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    result = run_of(network, digits)
    bundle = publish(tmp_path, result, [result], digits)
    assert {record.certified_share for record in bundle.manifest.parity} == {0.0}


def test_digits_have_the_form_of_mnist(digits: Data) -> None:
    assert digits.train.images.shape[1:] == (28, 28)
    assert digits.train.images.dtype == torch.uint8
    assert digits.train.images.max() > 250
    assert not digits.train.images[:, :4].any(), "the border must be dark"
    assert len(digits.train) + len(digits.held_out) + len(digits.test) == 1797
    again = load("digits", Path(), None)
    assert torch.equal(again.held_out.images, digits.held_out.images)


def test_mean_and_deviation_are_those_of_the_pixels(digits: Data) -> None:
    pixels = digits.train.images.double().numpy() / 255
    assert digits.train.mean_and_deviation() == pytest.approx((pixels.mean(), pixels.std()))


def test_the_test_split_is_never_trained_on(mnist: Data) -> None:
    assert mnist.test.labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    held_out = {image.tobytes() for image in mnist.held_out.images.numpy()}
    train_images = {image.tobytes() for image in mnist.train.images.numpy()}
    test_images = {image.tobytes() for image in mnist.test.images.numpy()}
    assert not test_images & (train_images | held_out)
    assert not train_images & held_out
    assert np.bincount(mnist.held_out.labels.numpy()).min() > 400


def test_the_bundled_model_has_the_default_recipe() -> None:
    """`python -m training --seed N` trains it again; only the seed was chosen."""
    folder = MODELS_DIR / "mnist" / "1"
    recipe = (folder / "recipe.toml").read_text()
    assert recipe == Recipe(seed=open_bundle(folder).manifest.seed).toml()
