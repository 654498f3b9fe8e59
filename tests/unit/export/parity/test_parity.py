"""Parity: every runtime computes the same function, on real images and on odd ones."""

from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest
import torch

from export.architecture import Device, Precision, Runtime
from export.bundle import Bundle
from export.bundle.weights import read_weights
from export.errors import ImagesError, RuntimeUnavailableError
from export.parity.certificates import Prover
from export.parity.compare import Comparison, ImageSet, Report, Variant, compare, variants_of
from export.parity.probes import probe_images, vector_images
from export.parity.tally import Tally
from export.runtimes import open_runner
from export.runtimes.onnx import PROVIDER_OPTIONS
from forward_client import ForwardClient, ForwardError
from tests.support.bundles import random_images, reference_of
from tests.support.servers import start_held_server

RUNTIMES: tuple[Runtime, ...] = get_args(Runtime)
Weights = dict[str, np.ndarray]


def compare_on_cpu(bundle: Bundle, pixels: np.ndarray) -> Report:
    return compare(
        bundle, read_weights(bundle), ImageSet("given", pixels), variants_of(devices=("cpu",))
    )


def only(report: Report) -> Comparison:
    (one,) = report.comparisons
    return one


@pytest.fixture(scope="module")
def full(bundle: Bundle, test_pixels: np.ndarray) -> Report:
    """The comparison of every runtime on all test images."""
    return compare_on_cpu(bundle, test_pixels)


def test_every_runtime_was_compared_on_all_test_images(full: Report) -> None:
    assert [one.runtime for one in full.comparisons] == list(RUNTIMES)
    for one in full.comparisons:
        assert one.record
        assert one.record.images == 10_000
        names = [stage.stage for stage in one.record.stages]
        assert names == ["input", "flatten", "linear1", "relu", "linear2", "output"]
        assert one.record.stages[-1].max_error > 0, "float32 that equals float64 was not measured"


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_every_runtime_holds_on_all_test_images(full: Report, runtime: Runtime) -> None:
    (one,) = (one for one in full.comparisons if one.runtime == runtime)
    assert set(one.tiers.values()) == {"holds"}, one.violations
    assert one.divergence is None
    assert one.record
    assert one.record.certified_share == 1
    assert all(stage.margin <= 1 for stage in one.record.stages)


def test_the_figures_are_those_of_float64_numpy(
    full: Report, bundle: Bundle, weights: Weights, test_pixels: np.ndarray
) -> None:
    """Written again here, from the definitions."""
    onnx = next(one for one in full.comparisons if one.runtime == "onnx")
    assert onnx.record
    recorded = next(stage for stage in onnx.record.stages if stage.stage == "linear1")
    flat = test_pixels.reshape(10_000, 784).astype(np.float64)
    exact = flat @ weights["linear1.weight"].astype(np.float64).T + weights["linear1.bias"]
    runner = open_runner(bundle, "onnx", "cpu")
    error = np.abs(runner.trace(test_pixels, ["linear1"])["linear1"] - exact)
    bound = reference_of(bundle.manifest.stages, weights, test_pixels).bounds["linear1"]
    ulp = 2.0 ** (np.floor(np.log2(np.abs(exact).max(axis=1))) - 23)
    assert recorded.max_error == pytest.approx(error.max(), rel=1e-9)
    assert recorded.mean_error == pytest.approx(error.mean(), rel=1e-9)
    assert recorded.bound == pytest.approx(bound.max(), rel=1e-9)
    assert recorded.margin == pytest.approx((error / bound).max(), rel=1e-9)
    assert recorded.max_ulps == pytest.approx((error.max(axis=1) / ulp).max(), rel=1e-9)
    np.testing.assert_allclose(onnx.unit_errors["linear1"], error.max(axis=0), rtol=1e-9)


def test_the_manifest_records_the_comparison(full: Report, bundle: Bundle) -> None:
    recorded = {record.run: record for record in bundle.manifest.parity}
    assert len(recorded) == len(RUNTIMES) * 2, "on test images and on synthetic ones"
    for one in full.comparisons:
        assert one.record
        before = recorded[one.record.runtime, one.record.provider, "float32", "test"]
        assert before.images == 10_000
        assert before.certified_share == one.record.certified_share
        for now, then in zip(one.record.stages, before.stages, strict=True):
            assert now.bound == pytest.approx(then.bound, rel=1e-6), "another network"
            assert now.max_error <= 4 * then.max_error


def hot_pixel() -> np.ndarray:
    images = np.zeros((1, 28, 28), np.float32)
    images[0, 14, 13] = 1
    return images


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((1, 28, 28), np.float32),
        np.ones((1, 28, 28), np.float32),
        np.full((2, 28, 28), 2.0**-149, np.float32),
        np.full((2, 28, 28), 2.0**-127, np.float32),
        hot_pixel(),
        *(random_images(count, (28, 28)) for count in (1, 2, 3, 1000)),
    ],
    ids=["dark", "bright", "smallest", "subnormal", "hot pixel", "1", "2", "3", "1000"],
)
def test_odd_inputs_agree_in_every_runtime(bundle: Bundle, images: np.ndarray) -> None:
    report = compare_on_cpu(bundle, images)
    assert [one.runtime for one in report.comparisons] == list(RUNTIMES)
    for one in report.comparisons:
        assert one.divergence is None
        assert [one.tiers[tier] for tier in ("T0", "T1", "T2")] == ["holds"] * 3


def test_another_network_agrees_in_every_runtime(tiny: Bundle) -> None:
    report = compare_on_cpu(tiny, random_images(7, (3, 5)))
    for one in report.comparisons:
        assert one.divergence is None
        assert one.tiers["T2"] == "not judged", "there is no record to judge it by"


def test_the_server_refuses_nan_before_the_runtime(bundle: Bundle) -> None:
    images = np.zeros((1, 28, 28), np.float32)
    images[0, 3, 3] = np.nan
    with start_held_server(bundle) as server, ForwardClient(server.address) as caller:
        with pytest.raises(ForwardError, match="finite"):
            caller.predict(images)
        assert server.runner.runs == 0


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_missing_device_is_not_run_and_never_passes(
    bundle: Bundle, weights: Weights, runtime: Runtime
) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    with pytest.raises(RuntimeUnavailableError):
        open_runner(bundle, runtime, "cuda")
    images = ImageSet("given", random_images(2, (28, 28)))
    report = compare(bundle, weights, images, [Variant(runtime=runtime, device="cuda")])
    assert only(report).status == "not run"
    assert only(report).reason
    assert (only(report).record, only(report).tiers) == (None, {})
    assert not report.holds, "nothing was compared"
    both = compare(bundle, weights, images, variants_of(runtimes=(runtime,)))
    assert [one.status for one in both.comparisons] == ["holds", "not run"]
    assert both.holds


PRECISIONS: tuple[tuple[Device, Precision], ...] = (("cpu", "bfloat16"), ("cpu", "tf32"))


@pytest.mark.parametrize(("device", "precision"), PRECISIONS)
def test_an_unused_precision_is_not_run(
    bundle: Bundle, weights: Weights, device: Device, precision: Precision
) -> None:
    """Which of both depends on the processor; a pass at float32 is neither."""
    variant = Variant(runtime="eager", device=device, precision=precision)
    images = random_images(100, (28, 28))
    report = compare(bundle, weights, ImageSet("given", images), [variant])
    error = np.abs(
        open_runner(bundle, "eager", device, precision).trace(images, ["linear1"])["linear1"]
        - reference_of(bundle.manifest.stages, weights, images).values["linear1"]
    )
    float32_bound = reference_of(bundle.manifest.stages, weights, images).bounds["linear1"]
    if (error > float32_bound).any():
        assert only(report).tiers["T1"] == "holds"
    else:
        assert only(report).status == "not run"
        assert "kernels did not use it" in (only(report).reason or "")


def test_tf32_is_off_unless_it_is_asked_for() -> None:
    assert PROVIDER_OPTIONS["cuda", "float32"] == {"use_tf32": "0"}
    assert PROVIDER_OPTIONS["cuda", "tf32"] == {"use_tf32": "1"}


def test_a_precision_leaves_torch_as_it_was(bundle: Bundle) -> None:
    matmul: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined] # unknown to mypy
    before = matmul.fp32_precision
    images = random_images(3, (28, 28))
    expected = open_runner(bundle, "eager", "cpu").predict(images)
    open_runner(bundle, "eager", "cpu", "bfloat16").predict(images)
    assert open_runner(bundle, "eager", "cpu").predict(images).tobytes() == expected.tobytes()
    assert matmul.fp32_precision == before


def test_the_guard_is_4_times_the_largest_record(bundle: Bundle, weights: Weights) -> None:
    runner = open_runner(bundle, "onnx", "cpu")
    images = random_images(50, (28, 28))
    reference = reference_of(bundle.manifest.stages, weights, images)
    error = np.abs(runner.trace(images, ["linear1"])["linear1"] - reference.values["linear1"]).max()
    for share, expected in ((0.251, []), (0.249, ["T2"])):
        tally = Tally(bundle.manifest.stages, runner, {"linear1": error * share})
        tally.add(images, {"float32": reference})
        assert [one.tier for one in tally.violations()] == expected


def test_the_record_is_the_largest_error_over_image_sets(bundle: Bundle) -> None:
    by_set = {
        record.image_set: {stage.stage: stage.max_error for stage in record.stages}
        for record in bundle.manifest.parity
        if record.runtime == "onnx"
    }
    largest = {
        name: max(error, by_set["synthetic"][name]) for name, error in by_set["test"].items()
    }
    for parity in (bundle.manifest.parity, bundle.manifest.parity[::-1]):
        manifest = bundle.manifest.model_copy(update={"parity": parity})
        found = manifest.recorded_errors("onnx", "CPUExecutionProvider", "float32")
        assert found == largest
    assert len(largest) == 6
    assert bundle.manifest.recorded_errors("onnx", "CUDAExecutionProvider", "float32") == {}


def test_a_decision_between_two_classes_is_not_certified(
    bundle: Bundle, weights: Weights, mnist_pair: tuple[np.ndarray, np.ndarray]
) -> None:
    """Two digits are mixed until the exact logits are as near as their bound, then nearer."""
    one, other = mnist_pair
    shares = np.linspace(0.515, 0.52, 401, dtype=np.float32)[:, None, None]
    mixed = (1 - shares) * one + shares * other
    exact = Prover(bundle.manifest.stages, weights).prove(mixed, "float32").certificates
    ratio = exact.gap / exact.bound
    uncertain = ratio < 0.95
    assert uncertain.any()
    certain = (ratio > 1.05) & (ratio < 3)
    assert certain.any()
    report = compare_on_cpu(bundle, np.concatenate([mixed[certain], mixed[uncertain]]))
    for found in report.comparisons:
        assert found.record
        share = certain.sum() / (certain.sum() + uncertain.sum())
        assert found.record.certified_share == pytest.approx(share)
        assert found.tiers["T3"] == "fails"
        assert "not certain" in found.violations[0].text
        assert found.divergence is None, "it is a property of the image"
    assert not report.holds


@pytest.fixture
def mnist_pair(test_pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A seven and a two."""
    return test_pixels[0], test_pixels[1]


def test_synthetic_images_turn_on_every_possible_unit(bundle: Bundle, weights: Weights) -> None:
    stages = bundle.manifest.stages
    highest = np.maximum(weights["linear1.weight"], 0).sum(axis=1) + weights["linear1.bias"]
    for make in (probe_images, vector_images):
        images = make(stages, weights, 0, 1)
        assert images.dtype == np.float32
        assert (images.min(), images.max()) == (0, 1)
        assert images.tobytes() == make(stages, weights, 0, 1).tobytes()
        plain = images[:4]
        assert [image.sum() for image in plain[:2]] == [0, 784]
        assert [np.count_nonzero(image) for image in plain[2:]] == [784, 1]
        relu = reference_of(stages, weights, images[4:]).values["relu"]
        assert ((relu > 0).any(axis=0) == (highest > 0)).all()


def test_the_range_of_synthetic_images_is_the_models(bundle: Bundle, weights: Weights) -> None:
    images = probe_images(bundle.manifest.stages, weights, -1, 3)
    assert (images.min(), images.max()) == (-1, 3)


def test_a_comparison_without_images_or_variants_fails(bundle: Bundle, weights: Weights) -> None:
    images = ImageSet("none", np.empty((0, 28, 28), np.float32))
    with pytest.raises(ImagesError, match="no images"):
        compare(bundle, weights, images, variants_of())
    without_variants = compare(bundle, weights, replace(images, pixels=hot_pixel()), [])
    assert not without_variants.holds


def test_onnx_answers_do_not_depend_on_the_batch(bundle: Bundle) -> None:
    runner = open_runner(bundle, "onnx", "cpu")
    images = random_images(64, (28, 28))
    alone = np.concatenate([runner.predict(image[None]) for image in images])
    assert alone.tobytes() == runner.predict(images).tobytes()
