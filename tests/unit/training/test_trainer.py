"""The trainer: its figures, its options, and the same bits every time."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from tests.support.bundles import random_images
from tests.support.trainings import fitted, parameters_of
from training.augment import distort
from training.config import Recipe
from training.data import Data, load
from training.evaluate import evaluate
from training.metrics import accuracy
from training.model import NormalisedNetwork
from training.trainer import Trainer, deterministic


@pytest.fixture(scope="module")
def digits() -> Data:
    return load("digits", Path(), None)


@pytest.fixture(scope="module")
def base(digits: Data) -> Trainer:
    return fitted(digits)


# Another value of each setting of the recipe; a field without one fails the test below.
OTHER_VALUES: dict[str, Any] = {
    "hidden": (64,),
    "epochs": 3,
    "seed": 1,
    "batch_images": 64,
    "learning_rate": 1e-3,
    "weight_decay": 0.5,
    "average_decay": 0.5,
    "augmentation": 0.5,
    "augmentation_end": 0.9,
}


@pytest.mark.parametrize(
    "name", sorted(Recipe.model_fields.keys() - {"dataset", "threads", "device"})
)
def test_every_setting_of_the_recipe_decides_the_weights(
    name: str, base: Trainer, digits: Data
) -> None:
    other = parameters_of(fitted(digits, **{name: OTHER_VALUES[name]}))
    same = parameters_of(base)
    assert len(other) != len(same) or not torch.equal(other, same)


def test_the_same_recipe_gives_the_same_bits(base: Trainer, digits: Data) -> None:
    torch.manual_seed(12345)  # nothing is drawn from the generator that everybody shares
    assert torch.equal(parameters_of(fitted(digits)), parameters_of(base))


def test_a_restored_training_ends_with_the_same_bits(digits: Data) -> None:
    whole, broken, resumed = (
        Trainer(Recipe(dataset="digits", hidden=(16,), epochs=3, batch_images=32), digits)
        for _ in range(3)
    )
    with deterministic(1):
        list(whole.train())
        next(broken.train())
        state = {name: value.clone() for name, value in broken.state().items()}
        resumed.restore(state, broken.epochs)
        assert [epoch.epoch for epoch in resumed.train()] == [2, 3]
    assert torch.equal(parameters_of(resumed), parameters_of(whole))
    without_time = [
        [{**vars(epoch), "seconds": 0} for epoch in trainer.epochs] for trainer in (whole, resumed)
    ]
    assert without_time[0] == without_time[1]


def test_threads_and_determinism_are_restored_after_the_block() -> None:
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    with deterministic(before[0] + 1):
        assert torch.get_num_threads() == before[0] + 1
        assert torch.are_deterministic_algorithms_enabled()
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == before


def test_an_epoch_reports_what_its_weights_do(base: Trainer, digits: Data) -> None:
    """The figures against the published network in float64 NumPy."""
    last, network = base.epochs[-1], base.average.folded()
    weights = {name: value.double().numpy() for name, value in network.state_dict().items()}
    pixels = digits.held_out.pixels().double().numpy().reshape(len(digits.held_out), -1)
    hidden = pixels @ weights["layers.linear1.weight"].T + weights["layers.linear1.bias"]
    hidden = np.maximum(hidden, 0)
    logits = hidden @ weights["layers.linear2.weight"].T + weights["layers.linear2.bias"]
    labels = digits.held_out.labels.numpy()
    shifted = logits - logits.max(axis=1, keepdims=True)
    logarithms = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    assert last.held_out_accuracy == float((logits.argmax(axis=1) == labels).mean())
    expected = -logarithms[np.arange(len(labels)), labels].mean()
    assert last.held_out_loss == pytest.approx(expected, rel=1e-4)
    assert last.dead_units == int((hidden.max(axis=0) == 0).sum())
    for name, norm in last.weight_norms.items():
        trained = base.average.get_parameter(f"network.layers.{name}.weight").detach().double()
        assert norm == pytest.approx(float(np.sqrt((trained.numpy() ** 2).sum())), rel=1e-5)
    assert set(last.weight_norms) == {"linear1", "linear2"}
    assert last.held_out_accuracy == evaluate(network, digits.held_out).accuracy


def test_an_epoch_reports_the_figures_of_its_steps(digits: Data) -> None:
    """One step over all images without distortion: the figures are those of the first weights."""
    trainer = Trainer(
        Recipe(dataset="digits", epochs=1, batch_images=len(digits.train), augmentation=0.0), digits
    )
    model = NormalisedNetwork(
        trainer.average.network.stages, trainer.average.mean, trainer.average.standard_deviation
    )
    model.load_state_dict(trainer.average.state_dict())
    logits = model(digits.train.pixels())
    loss = functional.cross_entropy(logits, digits.train.labels)
    loss.backward()
    squares = [
        (parameter.grad.double() ** 2).sum().item()
        for parameter in model.parameters()
        if parameter.grad is not None
    ]
    (epoch,) = trainer.train()
    assert epoch.train_loss == pytest.approx(loss.item(), rel=1e-4)
    assert epoch.train_accuracy == pytest.approx(accuracy(logits, digits.train.labels), abs=0.003)
    assert epoch.gradient_norm == pytest.approx(math.sqrt(math.fsum(squares)), rel=1e-3)
    assert epoch.seconds > 0


def test_a_dead_unit_is_counted(digits: Data) -> None:
    trainer = Trainer(
        Recipe(dataset="digits", epochs=1, hidden=(16, 8), learning_rate=1e-9), digits
    )
    with torch.no_grad():
        for name, count in (("linear1", 3), ("linear2", 2)):
            for model in (trainer.average, trainer._model):
                model.get_parameter(f"network.layers.{name}.bias")[:count] = -1e6
    (epoch,) = trainer.train()
    again = trainer.average.trace(digits.held_out.pixels())
    dead = sum(int((again[name] == 0).all(dim=0).sum()) for name in ("relu1", "relu2"))
    assert epoch.dead_units == dead >= 5


def test_the_learning_rate_rises_then_falls_to_0(digits: Data) -> None:
    rates = [epoch.learning_rate for epoch in fitted(digits, epochs=20, batch_images=128).epochs]
    assert rates[0] < rates[1]
    assert rates[2:] == sorted(rates[2:], reverse=True)
    assert max(rates) <= Recipe().learning_rate
    assert rates[-1] < 1e-4 * max(rates)


def test_without_an_average_the_last_weights_are_published(digits: Data) -> None:
    trainer = fitted(digits, average_decay=0.0)
    for averaged, now in zip(
        trainer.average.parameters(), trainer._model.parameters(), strict=True
    ):
        assert torch.equal(averaged, now)


@pytest.fixture
def distorted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, float]]:
    """How many images were distorted, and how strongly, by call."""
    calls: list[tuple[int, float]] = []

    def counted(images: torch.Tensor, generator: torch.Generator, strength: float) -> torch.Tensor:
        calls.append((len(images), strength))
        return distort(images, generator, strength)

    monkeypatch.setattr("training.trainer.distort", counted)
    return calls


def test_every_training_image_is_distorted_in_every_epoch(
    digits: Data, distorted: list[tuple[int, float]]
) -> None:
    fitted(digits)
    assert sum(count for count, _ in distorted) == 2 * len(digits.train)


def test_distortions_are_constant_then_taper_off(
    digits: Data, distorted: list[tuple[int, float]]
) -> None:
    trainer = fitted(digits, epochs=10, augmentation=2.0, augmentation_end=0.5)
    strengths = [strength for _, strength in distorted]
    constant = round(0.7 * len(strengths))
    assert set(strengths[:constant]) == {2.0}
    steps = np.diff(strengths[constant:])
    assert steps == pytest.approx([(0.5 - 2.0) / (len(strengths) - constant)] * len(steps), rel=0.1)
    assert strengths[-1] == pytest.approx(0.5, abs=0.02)
    assert trainer.epochs[-1].augmentation == pytest.approx(0.5, abs=0.02)


def test_folding_the_normalisation_keeps_the_function(base: Trainer) -> None:
    model = base.average
    images = torch.from_numpy(random_images(50, (28, 28)))
    folded = model.folded()
    expected = model.double()(images.double())
    model.float()
    # Rounding the folded weights to float32 moves a logit by parts in 10 million.
    torch.testing.assert_close(folded.double()(images.double()), expected, rtol=0, atol=3e-6)
    weight = "layers.linear1.weight"
    assert not torch.equal(folded.state_dict()[weight], model.network.state_dict()[weight])


def test_the_default_network_has_101_770_parameters(mnist: Data) -> None:
    trainer = Trainer(Recipe(), mnist)
    assert sum(parameter.numel() for parameter in trainer.average.parameters()) == 101_770
