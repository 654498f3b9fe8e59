"""The residual of an attribution is within its bound, which notices what is off by little."""

from collections.abc import Mapping
from fractions import Fraction
from random import Random

import numpy as np
import pytest
from hypothesis import assume, given, settings, target
from hypothesis import strategies as st

from export.architecture import Stage, mlp
from export.attribution.attribute import Method, Question, attribute, needed_stages
from export.attribution.network import Network
from export.runtimes import Runner
from tests.support.arithmetic import DEVICES, fractions, precision_of
from tests.support.bundles import random_images
from tests.support.networks import random_weights, run_in_float32
from tests.support.simulation import simulate
from tests.unit.export.parity.test_bounds import networks

COMPLETE: tuple[Method, ...] = ("linear_region", "integrated_gradients")


@settings(max_examples=50)
@given(
    network=networks(),
    random=st.randoms(use_true_random=False),
    asks=st.tuples(st.booleans(), st.booleans()),
)
def test_no_arithmetic_leaves_more_than_the_bound(
    network: tuple[list[Stage], dict[str, np.ndarray], np.ndarray],
    random: Random,
    asks: tuple[bool, bool],
) -> None:
    """On every device, by both methods, with the same networks."""
    (stages, weights, image), (two_classes, starts_elsewhere) = network, asks
    other = stages[-1].size - 1 if two_classes and stages[-1].size > 1 else None
    baseline = image[0] * np.float32(-0.5) if starts_elsewhere else None
    for device, arithmetic in DEVICES.items():
        found = simulate(arithmetic, stages, weights, image, random)
        assume(max(abs(number) for stage in found.values() for number in stage) < 1e37)
        values = {
            stage.name: np.array(found[stage.name], np.float32).reshape(1, *stage.shape)
            if found.get(stage.name)
            else image
            for stage in stages
        }
        attributed_network = Network.of(stages, weights, precision_of(device))
        for method in COMPLETE:
            question = Question(method, 0, other, baseline=baseline)
            used = used_share(attributed_network, values, question)
            target(used, label=f"{method} on {device}")


def used_share(network: Network, values: Mapping[str, np.ndarray], question: Question) -> float:
    """Check the residual of one image; return its share of the bound."""
    attributed = attribute(network, values, question)
    logits, other = fractions(values[network.stages[-1].name]), question.other_class
    score = logits[0] - (0 if other is None else logits[other])
    residual = score - Fraction(attributed.bias[0]) - sum(fractions(attributed.contributions))
    bound = attributed.residual_bound[0]
    if np.isinf(bound):
        return 0.0  # float32 could overflow, and the simulated formats can not
    assert abs(residual) <= bound
    assert abs(Fraction(attributed.residual[0]) - residual) <= bound
    return float(abs(residual) / Fraction(bound)) if bound else 0.0


@pytest.mark.parametrize("method", COMPLETE)
@pytest.mark.parametrize("hidden", [(), (12,), (12, 9), (10, 9, 8)])
def test_a_logit_that_is_off_by_little_exceeds_the_bound(
    method: Method, hidden: tuple[int, ...]
) -> None:
    stages = mlp((6, 7), hidden, 3)
    weights = random_weights(stages, 1)
    values = run_in_float32(stages, weights, random_images(20, (6, 7)))
    network, question = Network.of(stages, weights, "float32"), Question(method)
    right = attribute(network, values, question)
    assert (np.abs(right.residual) <= right.residual_bound).all()
    off = {**values, "output": values["output"] * np.float32(1.001) + np.float32(1e-3)}
    wrong = attribute(network, off, question)
    assert (np.abs(wrong.residual) > wrong.residual_bound).all()


@pytest.mark.parametrize("method", COMPLETE)
@pytest.mark.parametrize("other", [None, 3])
def test_all_test_images_are_complete_within_the_bound(
    bundle_network: Network,
    onnx: Runner,
    test_pixels: np.ndarray,
    method: Method,
    other: int | None,
) -> None:
    used, bounds = [], []
    for start in range(0, len(test_pixels), 1000):
        stages = needed_stages(bundle_network, method)
        values = onnx.trace(test_pixels[start : start + 1000], stages)
        found = attribute(bundle_network, values, Question(method, other_class=other))
        is_other = found.target == other
        assert not found.contributions[is_other].any()
        total = found.contributions.sum(axis=(1, 2), dtype=np.float64)
        residual = np.abs(found.score - found.bias - total)
        assert (residual <= found.residual_bound).all()
        used.append((np.abs(found.residual) / found.residual_bound)[~is_other])
        bounds.append(found.residual_bound)
    assert 1e-4 < np.concatenate(used).max() <= 1
    assert np.concatenate(bounds).max() < 0.01
    assert len(np.concatenate(bounds)) == 10_000


@pytest.mark.parametrize("method", COMPLETE)
def test_numbers_that_overflow_have_an_infinite_bound(method: Method) -> None:
    stages = mlp((1, 2), [2], 2)
    weights = {name: np.full_like(array, 3e38) for name, array in random_weights(stages, 0).items()}
    with np.errstate(over="ignore", invalid="ignore"):
        values = run_in_float32(stages, weights, np.ones((1, 1, 2), np.float32))
    found = attribute(Network.of(stages, weights, "float32"), values, Question(method, 0))
    assert np.isinf(found.residual_bound).all()
