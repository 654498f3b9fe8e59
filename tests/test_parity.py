"""Parity: every runtime within the proven bound on real images, and no fault gets through."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.numpy import load

from export.architecture import Runtime
from export.bounds import bounded_forward
from export.bundle import Bundle
from export.errors import ParityError, RuntimeUnavailableError
from export.manifest import WEIGHTS_FILE
from export.parity import compare_stage, measure
from export.runners import Runner, open_runner
from export.verify import probe_images
from tests.bundles import random_images

RUNTIMES: tuple[Runtime, ...] = ("eager", "torchscript", "onnx")


@pytest.fixture(scope="module")
def weights(bundle: Bundle) -> dict[str, np.ndarray]:
    return load(bundle.read(WEIGHTS_FILE))


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_every_stage_is_within_its_bound_on_all_test_images(
    bundle: Bundle, weights: dict[str, np.ndarray], runtime: Runtime, test_pixels: np.ndarray
) -> None:
    record = measure(
        open_runner(bundle, runtime, "cpu"), bundle.manifest.stages, weights, test_pixels
    )
    assert record.images == 10_000
    assert [s.stage for s in record.stages] == [s.name for s in bundle.manifest.stages]
    assert all(stage.margin <= 1 for stage in record.stages)
    assert record.stages[-1].max_error > 0, "float32 that equals float64 was not measured"


def test_the_manifest_records_the_parity_of_every_runtime(bundle: Bundle) -> None:
    assert {record.runtime for record in bundle.manifest.parity} == set(RUNTIMES)
    for record in bundle.manifest.parity:
        assert record.images == 10_000
        assert all(0 <= stage.margin <= 1 for stage in record.stages)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize(
    "images",
    [
        np.zeros((1, 28, 28), np.float32),
        np.ones((3, 28, 28), np.float32),
        np.full((2, 28, 28), 2.0**-149, np.float32),
    ],
    ids=["dark", "bright", "subnormal"],
)
def test_odd_images_are_within_the_bound(
    bundle: Bundle, weights: dict[str, np.ndarray], runtime: Runtime, images: np.ndarray
) -> None:
    measure(open_runner(bundle, runtime, "cpu"), bundle.manifest.stages, weights, images)


class TamperedRunner:
    """The ONNX runner with its traces changed on the way."""

    def __init__(self, runner: Runner, tamper: Callable[[dict[str, np.ndarray]], object]) -> None:
        self._runner = runner
        self._tamper = tamper
        self.runtime, self.device = runner.runtime, runner.device
        self.provider, self.precision = runner.provider, runner.precision

    def trace(self, images: np.ndarray, stages: Sequence[str]) -> dict[str, np.ndarray]:
        traced = {name: v.copy() for name, v in self._runner.trace(images, stages).items()}
        self._tamper(traced)
        return traced

    def predict(self, images: np.ndarray) -> np.ndarray:
        return self.trace(images, ["linear1", "relu", "linear2", "output"])["output"]


def leave_out_relu(traced: dict[str, np.ndarray]) -> None:
    traced["relu"] = traced["linear1"]


def put_nan(traced: dict[str, np.ndarray]) -> None:
    traced["linear2"][0, 3] = np.nan


@pytest.mark.parametrize(
    ("tamper", "message"),
    [
        (leave_out_relu, "stage 'relu' departs"),
        (put_nan, "stage 'linear2' departs"),
        (lambda traced: traced.pop("relu"), "stage 'relu' is missing"),
        (lambda traced: traced.update(linear1=traced["linear1"][:-1]), "'linear1' has shape"),
    ],
    ids=["relu left out", "NaN on one side", "stage missing", "fewer images"],
)
def test_a_faulty_runtime_is_caught_at_its_stage(
    bundle: Bundle,
    weights: dict[str, np.ndarray],
    tamper: Callable[[dict[str, np.ndarray]], object],
    message: str,
) -> None:
    runner = TamperedRunner(open_runner(bundle, "onnx", "cpu"), tamper)
    with pytest.raises(ParityError, match=message):
        measure(runner, bundle.manifest.stages, weights, probe_images(bundle.manifest))


def without_bias(weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {**weights, "linear1.bias": np.zeros_like(weights["linear1.bias"])}


def nudged(weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    nudge = weights["linear2.weight"].copy()
    # Of a unit that some probe turns on, else no output would show it.
    nudge[4, 17] += 0.05
    return {**weights, "linear2.weight": nudge}


@pytest.mark.parametrize(
    ("change", "stage"),
    [(without_bias, "linear1"), (nudged, "linear2")],
    ids=["a missing bias", "a weight off"],
)
def test_weights_that_differ_are_caught_at_their_stage(
    bundle: Bundle,
    weights: dict[str, np.ndarray],
    change: Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]],
    stage: str,
) -> None:
    with pytest.raises(ParityError, match=f"stage '{stage}' departs"):
        measure(
            open_runner(bundle, "onnx", "cpu"),
            bundle.manifest.stages,
            change(weights),
            probe_images(bundle.manifest),
        )


def test_logits_of_trace_that_differ_in_one_bit_are_caught(
    bundle: Bundle, weights: dict[str, np.ndarray]
) -> None:
    class Drifting(TamperedRunner):
        def predict(self, images: np.ndarray) -> np.ndarray:
            return np.nextafter(super().predict(images), np.float32(np.inf))

    runner = Drifting(open_runner(bundle, "onnx", "cpu"), dict.copy)
    with pytest.raises(ParityError, match="logits of a trace differ"):
        measure(runner, bundle.manifest.stages, weights, probe_images(bundle.manifest))


def test_a_comparison_of_nothing_fails(bundle: Bundle, weights: dict[str, np.ndarray]) -> None:
    empty = np.empty((0, 28, 28), np.float32)
    with pytest.raises(ParityError, match="no images"):
        measure(open_runner(bundle, "onnx", "cpu"), bundle.manifest.stages, weights, empty)


def test_the_worst_element_decides_not_the_mean(
    bundle: Bundle, weights: dict[str, np.ndarray]
) -> None:
    exact = list(bounded_forward(bundle.manifest.stages, weights, random_images(50, (28, 28))))[-1]
    traced = exact.value.astype(np.float32)
    traced[31, 7] += np.float32(exact.bound[31, 7] * 1.01)
    with pytest.raises(ParityError, match=r"element \[31, 7\]"):
        compare_stage("onnx", exact, {exact.name: traced})
    wider = replace(exact, bound=exact.bound * 1.1)
    assert compare_stage("onnx", wider, {exact.name: traced}).margin > 0.9


def test_onnx_answers_do_not_depend_on_the_batch(bundle: Bundle) -> None:
    runner = open_runner(bundle, "onnx", "cpu")
    images = random_images(64, (28, 28))
    alone = np.concatenate([runner.predict(image[None]) for image in images])
    assert alone.tobytes() == runner.predict(images).tobytes()


@pytest.mark.parametrize("runtime", ["onnx", "torchscript"])
def test_cuda_that_is_not_to_be_had_is_an_error(bundle: Bundle, runtime: Runtime) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    with pytest.raises(RuntimeUnavailableError, match="CUDA"):
        open_runner(bundle, runtime, "cuda")


def test_a_network_of_another_shape_runs_in_every_runtime(tiny: Bundle) -> None:
    tiny_weights = load(tiny.read(WEIGHTS_FILE))
    for runtime in RUNTIMES:
        runner = open_runner(tiny, runtime, "cpu")
        measure(runner, tiny.manifest.stages, tiny_weights, random_images(7, (3, 5)))
