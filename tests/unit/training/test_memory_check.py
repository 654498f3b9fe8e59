"""Networks that no memory holds: refused by name, before anything is allocated."""

from pathlib import Path

import pytest
import torch
from rich.console import Console

import training.memory
from export.architecture import mlp
from export.network import Network, weights_of
from export.settings import read_settings
from training.config import Recipe, TrainingSettings, parameter_count
from training.data import Data, load
from training.errors import ConfigurationError
from training.memory import available_bytes, check_memory, out_of_memory_named
from training.train import train


@pytest.fixture(scope="module")
def digits() -> Data:
    return load("digits", Path(), None)


@pytest.mark.parametrize("hidden", [(128,), (24, 12), (1,) * 16])
def test_the_parameters_are_those_of_the_network(hidden: tuple[int, ...]) -> None:
    weights = weights_of(Network(mlp((28, 28), hidden, 10)))
    assert parameter_count(hidden) == sum(array.size for array in weights.values())


def test_a_network_larger_than_memory_is_refused(digits: Data) -> None:
    recipe = Recipe(dataset="digits", hidden=(10_000, 10_000))
    with pytest.raises(
        ConfigurationError,
        match=r"--hidden 10000,10000: needs at least 2\.8 GiB .* this machine offers 1\.0 GiB",
    ):
        check_memory(recipe, digits, available=2**30)
    check_memory(recipe, digits, available=2**32)
    check_memory(Recipe(), digits)
    assert 2**30 < available_bytes() < 2**50


def test_a_training_too_large_for_memory_never_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training.memory, "available_bytes", lambda: 2**20)
    arguments = ["--dataset", "digits", "--models-dir", str(tmp_path)]
    with pytest.raises(ConfigurationError, match="this machine offers 0"):
        train(read_settings(TrainingSettings, arguments), Console(quiet=True))


def test_running_out_of_memory_is_a_clear_error() -> None:
    with (
        pytest.raises(
            ConfigurationError, match="not enough memory for --hidden 128 and --batch-images"
        ),
        out_of_memory_named(Recipe()),
    ):
        torch.empty(10**15)
    with (
        pytest.raises(ConfigurationError, match="not enough memory of the GPU for --hidden 128"),
        out_of_memory_named(Recipe()),
    ):
        # As torch says it where other programs have left none; it has no type for that.
        raise RuntimeError("CUDA error: out of memory\nCompile with `TORCH_USE_CUDA_DSA`")
    with pytest.raises(RuntimeError, match="cannot be multiplied"), out_of_memory_named(Recipe()):
        torch.zeros(2) @ torch.zeros(3, 3)
