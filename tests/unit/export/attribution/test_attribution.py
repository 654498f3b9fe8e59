"""Contributions beside torch's autograd and fine sums along the path, in float64."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from export.architecture import Stage, mlp
from export.attribution.attribute import Attributions, Method, Question, attribute
from export.attribution.network import Network
from tests.support.bundles import random_images
from tests.support.networks import TorchOracle, random_weights, run_in_float32

SHAPE, CLASSES = (4, 5), 3
HIDDEN = [(7,), (7, 6), (6, 7, 5)]
DEPTHS = st.sampled_from([(), *HIDDEN])


def attributed(
    stages: tuple[Stage, ...],
    weights: dict[str, np.ndarray],
    images: np.ndarray,
    question: Question,
) -> Attributions:
    network = Network.of(stages, weights, "float32")
    return attribute(network, run_in_float32(stages, weights, images), question)


@settings(max_examples=60)
@given(hidden=DEPTHS, seed=st.integers(0, 10_000), other=st.sampled_from([None, 2]), data=st.data())
def test_gradients_are_those_of_autograd(
    hidden: tuple[int, ...], seed: int, other: int | None, data: st.DataObject
) -> None:
    stages = mlp(SHAPE, hidden, CLASSES)
    weights, images = random_weights(stages, seed), random_images(3, SHAPE, seed)
    values, gradients = TorchOracle(stages, weights).gradients(images, 0, other)
    linear = [values[stage.name] for stage in stages if stage.operation == "Linear"]
    assume(min(np.abs(each).min() for each in linear) > 1e-6)  # the same units are active
    name = data.draw(st.sampled_from([stage.name for stage in stages]))
    for method, expected in (
        ("saliency", gradients),
        ("linear_region", {each: gradients[each] * values[each] for each in values}),
    ):
        question = Question(method, 0, other, name)  # type: ignore[arg-type] # one of the methods
        found = attributed(stages, weights, images, question)
        assert found.contributions.shape == (3, *SHAPE)
        np.testing.assert_allclose(found.contributions, expected["input"], rtol=1e-6, atol=1e-12)
        assert found.stage_contributions is not None
        assert found.stage_contributions.shape == values[name].shape
        np.testing.assert_allclose(found.stage_contributions, expected[name], rtol=1e-5, atol=1e-6)


@settings(max_examples=60)
@given(hidden=DEPTHS, seed=st.integers(0, 10_000), data=st.data())
def test_contributions_add_up_at_every_stage(
    hidden: tuple[int, ...], seed: int, data: st.DataObject
) -> None:
    stages = mlp(SHAPE, hidden, CLASSES)
    weights, images = random_weights(stages, seed), random_images(4, SHAPE, seed)
    method: Method = data.draw(st.sampled_from(["linear_region", "integrated_gradients"]))
    baseline = random_images(1, SHAPE, seed + 1)[0] if method == "integrated_gradients" else None
    for name in (stage.name for stage in stages):
        found = attributed(stages, weights, images, Question(method, 1, 0, name, baseline))
        assert found.stage_contributions is not None
        total = found.stage_contributions.reshape(4, -1).sum(axis=1, dtype=np.float64)
        np.testing.assert_allclose(total + found.stage_bias, found.score, atol=1e-5)
    np.testing.assert_array_equal(found.stage_bias, found.bias if baseline is not None else 0)


def riemann(oracle: TorchOracle, image: np.ndarray, baseline: np.ndarray, steps: int) -> np.ndarray:
    """Return integrated gradients by the middle of each step, [H, W]."""
    middles = (np.arange(steps) + 0.5) / steps
    path = baseline + middles[:, None, None] * (image.astype(np.float64) - baseline)
    return (image - baseline) * oracle.gradients(path, 1, None)[1]["input"].mean(axis=0)


def conductance(
    oracle: TorchOracle, image: np.ndarray, baseline: np.ndarray, steps: int, name: str
) -> np.ndarray:
    """Return the same of a stage's units: Σ of gradient times change over each step."""
    points = np.arange(2 * steps + 1) / (2 * steps)
    path = baseline + points[:, None, None] * (image.astype(np.float64) - baseline)
    values, gradients = oracle.gradients(path, 1, None)
    changes = np.diff(values[name][::2], axis=0)
    return (gradients[name][1::2] * changes).sum(axis=0)


@pytest.mark.parametrize("hidden", HIDDEN, ids=len)
@pytest.mark.parametrize("seed", range(3))
def test_fine_sums_along_the_path_converge_to_it(hidden: tuple[int, ...], seed: int) -> None:
    stages = mlp(SHAPE, hidden, CLASSES)
    weights = random_weights(stages, seed)
    oracle = TorchOracle(stages, weights)
    image, baseline = 6 * random_images(2, SHAPE, seed) - 3  # far apart: many units on the way
    question = Question("integrated_gradients", 1, None, "linear1", baseline)
    found = attributed(stages, weights, image[None], question)
    assert found.stage_contributions is not None
    sums: list[tuple[np.ndarray, Callable[[int], np.ndarray]]] = [
        (found.contributions[0], lambda steps: riemann(oracle, image, baseline, steps)),
        (
            found.stage_contributions[0],
            lambda steps: conductance(oracle, image, baseline, steps, "linear1"),
        ),
    ]
    for ours, approximation in sums:
        errors = [np.abs(approximation(steps) - ours).max() for steps in (20, 20_000)]
        assert errors[0] > 1e-5, "no breakpoint on the path says nothing"
        assert errors[1] < errors[0] / 100
        assert errors[1] < 1e-4 * np.abs(ours).max() + 1e-7


def test_a_path_of_no_length_contributes_nothing() -> None:
    stages = mlp(SHAPE, [7, 6], CLASSES)
    weights, images = random_weights(stages, 0), random_images(1, SHAPE)
    question = Question("integrated_gradients", 0, None, "relu2", images[0])
    found = attributed(stages, weights, images, question)
    assert not found.contributions.any()
    assert found.stage_contributions is not None
    assert not found.stage_contributions.any()
    np.testing.assert_allclose(found.bias, found.score, atol=1e-6)


def test_each_image_is_attributed_by_itself() -> None:
    """Also where a batch is more than the points of its paths may take at a time."""
    stages = mlp(SHAPE, [90, 80], CLASSES)
    weights, images = random_weights(stages, 0), random_images(150, SHAPE)
    for method in ("linear_region", "integrated_gradients", "saliency"):
        question = Question(method, stage="relu2")
        together = attributed(stages, weights, images, question)
        for index in (0, 70, 149):
            alone = attributed(stages, weights, images[index : index + 1], question)
            for name in ("contributions", "stage_contributions", "score", "bias", "residual_bound"):
                one, several = getattr(alone, name)[0], getattr(together, name)[index]
                np.testing.assert_allclose(several, one, rtol=1e-4, atol=1e-6)


def test_the_target_is_the_predicted_class_by_default() -> None:
    stages = mlp(SHAPE, [7], CLASSES)
    weights, images = random_weights(stages, 0), 6 * random_images(50, SHAPE) - 3
    logits = run_in_float32(stages, weights, images)["output"].astype(np.float64)
    found = attributed(stages, weights, images, Question(other_class=1))
    np.testing.assert_array_equal(found.target, logits.argmax(axis=1))
    np.testing.assert_array_equal(found.score, logits.max(axis=1) - logits[:, 1])
    assert (found.target == 1).any()
    assert not found.contributions[found.target == 1].any()
