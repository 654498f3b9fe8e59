"""Certified decisions: no runtime, and no arithmetic of its precision, decides otherwise."""

from fractions import Fraction
from itertools import pairwise
from random import Random
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings, target
from hypothesis import strategies as st

from export.architecture import Runtime, Stage, mlp
from export.bundle import Bundle
from export.bundle.weights import read_weights
from export.parity.certificates import Prover
from export.runtimes import open_runner
from export.runtimes.changes import Changes, StageChanges
from tests.support.arithmetic import DEVICES, EXACT, precision_of
from tests.support.bundles import publish_random_bundle, random_images
from tests.support.simulation import Weights, simulate

RUNTIMES: tuple[Runtime, ...] = get_args(Runtime)
CLASSES = 3
# Magnitudes that make sums cancel.
ELEMENTS = st.one_of(st.floats(-8, 8, width=32), st.sampled_from([0.0, 1.0, -1.0, 2.0**12]))


@st.composite
def undecided(draw: st.DrawFn) -> tuple[tuple[Stage, ...], Weights, np.ndarray]:
    """A network and an image whose two best logits are about as far apart as their bound."""
    width = draw(st.integers(1, 3))
    stages = mlp((1, width), draw(st.lists(st.integers(1, 3), max_size=2)), CLASSES)

    def values(*shape: int) -> np.ndarray:
        size = int(np.prod(shape))
        return np.array(draw(st.lists(ELEMENTS, min_size=size, max_size=size)), np.float32).reshape(
            shape
        )

    weights = {}
    for before, stage in pairwise(stages):
        if stage.operation == "Linear":
            weights[f"{stage.name}.weight"] = values(stage.size, before.size)
            weights[f"{stage.name}.bias"] = values(stage.size)
    image = values(1, 1, width)
    found = Prover(stages, weights).prove(image, "float32").certificates
    share = draw(st.floats(0.02, 1.5))
    nearer = found.gap[0] - share * found.bound[0]
    weights[f"{stages[-2].name}.bias"][found.nearest[0]] += np.float32(nearer)
    return stages, weights, image


@settings(max_examples=150)
@given(network=undecided(), random=st.randoms(use_true_random=False))
def test_no_arithmetic_decides_otherwise_where_certified(
    network: tuple[tuple[Stage, ...], Weights, np.ndarray], random: Random
) -> None:
    stages, weights, image = network
    exact = simulate(EXACT, stages, weights, image, random)["output"]
    for device in ("float32", "float32 fused", "tf32 tensor core", "bfloat16"):
        found = Prover(stages, weights).prove(image, precision_of(device)).certificates
        logits = simulate(DEVICES[device], stages, weights, image, random)["output"]
        best, rival = found.predicted[0], found.nearest[0]
        moved = (exact[best] - exact[rival]) - (logits[best] - logits[rival])
        if np.isfinite(found.bound[0]) and found.bound[0] > 0:
            assert abs(moved) <= Fraction(float(found.bound[0])), device
            target(float(abs(moved)) / found.bound[0], label=device)
        if found.certified[0]:
            for other in set(range(CLASSES)) - {best}:
                assert logits[best] > logits[other], device
                assert exact[best] > exact[other], device


def test_the_certificate_is_its_formula(bundle: Bundle, weights: Weights) -> None:
    """Written again, class by class; from the definitions."""
    images = random_images(20, (28, 28))
    reference, found = Prover(bundle.manifest.stages, weights).prove(images, "float32")
    relu, bounds = reference.values["relu"], reference.bounds["relu"]
    weight = weights["linear2.weight"].astype(np.float64)
    u = 2.0**-24 + 2.0**-53
    for number in range(len(images)):
        hidden, carried = relu[number], bounds[number]
        logits = weight @ hidden + weights["linear2.bias"]
        size = np.abs(weight) @ (hidden + carried)
        live = np.count_nonzero(hidden + carried)
        largest = (
            np.abs(weight) @ hidden + np.abs(weights["linear2.bias"]) + np.abs(logits)
        ) / 2 + np.abs(weight) @ carried
        own = u * size + (1 + u) * live * u / (1 - live * u) * largest
        best = int(logits.argmax())
        slack = {
            other: (
                logits[best] - logits[other],
                np.abs(weight[best] - weight[other]) @ carried + own[best] + own[other],
            )
            for other in set(range(10)) - {best}
        }
        nearest = min(slack, key=lambda other: slack[other][0] - slack[other][1])
        assert (found.predicted[number], found.nearest[number]) == (best, nearest)
        assert found.gap[number] == pytest.approx(slack[nearest][0], rel=1e-9)
        assert found.bound[number] == pytest.approx(slack[nearest][1], rel=1e-6)
        assert found.certified[number] == all(gap > bound for gap, bound in slack.values())


def test_every_decision_on_the_test_images_is_certified(
    bundle: Bundle, weights: Weights, test_pixels: np.ndarray
) -> None:
    found = Prover(bundle.manifest.stages, weights).prove(test_pixels, "float32").certificates
    assert found.certified.sum() == 10_000
    for runtime in RUNTIMES:
        logits = open_runner(bundle, runtime, "cpu").predict(test_pixels)
        assert (logits.argmax(axis=1) == found.predicted).all(), runtime


def test_the_difference_is_bounded_more_sharply_than_each(
    bundle: Bundle, weights: Weights, test_pixels: np.ndarray
) -> None:
    reference, found = Prover(bundle.manifest.stages, weights).prove(test_pixels[:500], "float32")
    images = np.arange(500)
    single = reference.bounds["output"]
    assert (found.bound < single[images, found.predicted] + single[images, found.nearest]).all()


def random_changes(stages: tuple[Stage, ...], images: int, random: np.random.Generator) -> Changes:
    """Change some elements of some stages of a batch in every way there is."""
    found = {}
    for stage in stages[:-1]:
        if random.random() < 0.4:
            continue
        total = images * stage.size
        at = random.permutation(total)[: random.integers(1, total + 1)].astype(np.int64)
        donor = random.integers(0, images, len(at))
        copied = donor * stage.size + at % stage.size
        source = np.where(random.random(len(at)) < 0.3, copied, at).astype(np.int64)
        scale = random.choice([0.0, 1.0, -1.0, 0.3, 5.5], len(at)).astype(np.float32)
        shift = random.choice([-0.0, -0.0, 0.7, -2.5], len(at)).astype(np.float32)
        low = random.choice([-np.inf, -1.0, 0.25], len(at)).astype(np.float32)
        high = random.choice([np.inf, 0.25, 3.0], len(at)).astype(np.float32)
        found[stage.name] = StageChanges(at, source, scale, shift, low, high)
    return found


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_changed_runs_are_within_bounds_and_certified(
    changeable: Bundle, changeable_weights: Weights, runtime: Runtime
) -> None:
    stages = changeable.manifest.stages
    runner = open_runner(changeable, runtime, "cpu")
    prover = Prover(stages, changeable_weights)
    names = [stage.name for stage in stages]
    certified = changed = 0
    for seed in range(40):
        random = np.random.default_rng(seed)
        images = random_images(5, (3, 5), seed)
        changes = random_changes(stages, 5, random)
        reference, found = prover.prove(images, "float32", changes)
        outputs = runner.intervene(images, names, changes)
        for name in names:
            error = np.abs(outputs[name] - reference.values[name])
            assert (error <= reference.bounds[name]).all(), (seed, name)
        decided = outputs["output"].argmax(axis=1)
        assert (decided == found.predicted)[found.certified].all()
        certified += found.certified.sum()
        changed += len(changes)
    assert certified > 150
    assert changed > 80


@pytest.fixture(scope="module")
def changeable(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return publish_random_bundle(tmp_path_factory.mktemp("models"), "changeable")


@pytest.fixture(scope="module")
def changeable_weights(changeable: Bundle) -> Weights:
    return read_weights(changeable)


def one_change(stage: str, at: int, shift: float) -> Changes:
    numbers = (np.array([number], np.float32) for number in (1.0, shift, -np.inf, np.inf))
    place = np.array([at])
    return {stage: StageChanges(place, place, *numbers)}


def test_changed_logits_are_certified_by_their_own_bounds(
    changeable: Bundle, changeable_weights: Weights
) -> None:
    """Of the changed image alone; the others keep the sharper bound."""
    images = random_images(3, (3, 5))
    prover = Prover(changeable.manifest.stages, changeable_weights)
    before = prover.prove(images, "float32").certificates
    reference, found = prover.prove(images, "float32", one_change("linear2", 1 * 2, 1e-3))
    single = reference.bounds["output"]
    assert found.bound[1] == pytest.approx(single[1].sum(), rel=1e-6)
    assert (found.bound[[0, 2]] == before.bound[[0, 2]]).all()


def test_a_bound_that_is_infinite_certifies_nothing() -> None:
    stages = mlp((1, 2), [], 2)
    weights = {
        "linear1.weight": np.array([[3e38, 3e38], [1.0, 1.0]], np.float32),
        "linear1.bias": np.zeros(2, np.float32),
    }
    found = Prover(stages, weights).prove(np.ones((1, 1, 2), np.float32), "float32").certificates
    assert np.isinf(found.bound).all()
    assert not found.certified.any()


def test_a_single_class_is_certain() -> None:
    weights = {
        "linear1.weight": np.ones((1, 2), np.float32),
        "linear1.bias": np.zeros(1, np.float32),
    }
    found = Prover(mlp((1, 2), [], 1), weights).prove(np.ones((1, 1, 2), np.float32), "float32")
    assert found.certificates.certified.all()
