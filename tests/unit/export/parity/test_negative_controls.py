"""Negative controls: each error is caught, and placed at its stage."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from torch import nn

from export.architecture import Device, Precision, Runtime, Stage
from export.bundle import Bundle
from export.bundle.manifest import (
    ONNX_FILE,
    ONNX_TRACE_FILE,
    PT2_FILE,
    TORCHSCRIPT_FILE,
    VECTORS_FILE,
    WEIGHTS_FILE,
)
from export.bundle.weights import read_weights
from export.errors import BundleError, ParityError
from export.parity.compare import Comparison, compare, synthetic_images, variants_of
from export.parity.heatmap import draw_heatmap
from export.parity.probes import probe_images
from export.parity.tally import Tally, first_divergence
from export.parity.vectors import check_vectors
from export.runtimes import Runner, open_runner
from export.runtimes.numpy import NumpyRunner
from export.runtimes.torch import Pt2Runner
from export.writers import write_all
from tests.support.bundles import random_images, reference_of, republish
from tests.support.servers import run_server_until_it_ends

Weights = dict[str, np.ndarray]
Change = Callable[[Weights], Weights]
# The runtimes that read a file of their own; eager reads the weights, as the oracle does.
EXPORTED: tuple[Runtime, ...] = ("torchscript", "pt2", "onnx", "onnx-reference")
DEVIATION = 0.3081  # MNIST's pixels have this standard deviation, and the mean below
MEAN = 0.1307


def transposed(weights: Weights) -> Weights:
    """Write W2 column by column where it is read row by row."""
    weight = weights["linear2.weight"]
    return {**weights, "linear2.weight": weight.T.reshape(weight.shape).copy()}


def without_bias(weights: Weights) -> Weights:
    return {**weights, "linear1.bias": np.zeros_like(weights["linear1.bias"])}


def without_last_bias(weights: Weights) -> Weights:
    return {**weights, "linear2.bias": np.zeros_like(weights["linear2.bias"])}


def with_rows_swapped(weights: Weights) -> Weights:
    weight = weights["linear1.weight"].copy()
    weight[[7, 90]] = weight[[90, 7]]
    return {**weights, "linear1.weight": weight}


def with_last_rows_swapped(weights: Weights) -> Weights:
    weight = weights["linear2.weight"].copy()
    weight[[3, 8]] = weight[[8, 3]]
    return {**weights, "linear2.weight": weight}


def nudged(weights: Weights) -> Weights:
    weight = weights["linear1.weight"].copy()
    weight[17, 11 * 28 + 16] += 1e-3
    return {**weights, "linear1.weight": weight}


def last_nudged(weights: Weights) -> Weights:
    weight = weights["linear2.weight"].copy()
    weight[4, 17] -= 1e-3
    return {**weights, "linear2.weight": weight}


def with_images_turned(weights: Weights) -> Weights:
    """Read the images column by column: no plain image shows it."""
    weight = weights["linear1.weight"]
    turned = weight.reshape(-1, 28, 28).transpose(0, 2, 1).reshape(weight.shape).copy()
    return {**weights, "linear1.weight": turned}


def normalised_twice(weights: Weights) -> Weights:
    weight, bias = weights["linear1.weight"], weights["linear1.bias"]
    return {
        **weights,
        "linear1.weight": weight / np.float32(DEVIATION),
        "linear1.bias": bias - weight.sum(axis=1) * np.float32(MEAN / DEVIATION),
    }


CHANGES: Sequence[tuple[Change, str]] = (
    (transposed, "linear2"),
    (without_bias, "linear1"),
    (without_last_bias, "linear2"),
    (with_rows_swapped, "linear1"),
    (with_last_rows_swapped, "linear2"),
    (with_images_turned, "linear1"),
    (nudged, "linear1"),
    (last_nudged, "linear2"),
    (normalised_twice, "linear1"),
)


def written_from(weights: Weights, stages: Sequence[Stage]) -> dict[str, bytes]:
    """Return the runtimes' files of these weights; not the weights, not the vectors."""
    contents = write_all(stages, weights, 0, 1)
    return {n: c for n, c in contents.items() if n not in {WEIGHTS_FILE, VECTORS_FILE}}


def compare_all(bundle: Bundle, weights: Weights) -> dict[Runtime, Comparison]:
    images = synthetic_images(bundle.manifest, weights)
    report = compare(bundle, weights, images, variants_of(devices=("cpu",)))
    assert not report.holds
    return {one.runtime: one for one in report.comparisons}


def expect_caught(bundle: Bundle, weights: Weights, faulty: Sequence[Runtime], stage: str) -> None:
    """The comparison and the self-check at load both name the stage, of those and no other."""
    found = compare_all(bundle, weights)
    assert found["eager"].status == "holds"
    for runtime in EXPORTED:
        expected = (stage, "fails") if runtime in faulty else (None, "holds")
        assert (found[runtime].first_diverging_stage, found[runtime].status) == expected, runtime
        runner = open_runner(bundle, runtime, "cpu")
        if runtime in faulty:
            with pytest.raises(ParityError, match=f"{runtime} on .*stage '{stage}' "):
                check_vectors(bundle, runner)
        else:
            assert check_vectors(bundle, runner).images > 0


@pytest.mark.parametrize(("change", "stage"), CHANGES, ids=[c.__name__ for c, _ in CHANGES])
def test_other_weights_are_caught_at_their_layer(
    bundle: Bundle, weights: Weights, tmp_path: Path, change: Change, stage: str
) -> None:
    faulty = republish(bundle, tmp_path, written_from(change(weights), bundle.manifest.stages))
    expect_caught(faulty, weights, EXPORTED, stage)


def test_an_error_in_one_file_fails_its_runtime(
    bundle: Bundle, weights: Weights, tmp_path: Path
) -> None:
    contents = written_from(nudged(weights), bundle.manifest.stages)
    faulty = republish(bundle, tmp_path, {PT2_FILE: contents[PT2_FILE]})
    expect_caught(faulty, weights, ["pt2"], "linear1")


@pytest.mark.parametrize("runtime", ["torchscript", "pt2"])
def test_a_relu_missing_in_torch_is_caught(
    bundle: Bundle,
    weights: Weights,
    tmp_path: Path,
    runtime: Runtime,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(nn, "ReLU", nn.Identity)
        contents = written_from(weights, bundle.manifest.stages)
    name = {"torchscript": TORCHSCRIPT_FILE, "pt2": PT2_FILE}[runtime]
    if runtime == "pt2":  # torch.export drops what does nothing, so the layer itself is missing
        with pytest.raises(BundleError, match=r"model\.pt2: no layer relu"):
            open_runner(republish(bundle, tmp_path, {name: contents[name]}), "pt2", "cpu")
    else:
        expect_caught(
            republish(bundle, tmp_path, {name: contents[name]}), weights, [runtime], "relu"
        )


def test_a_relu_missing_in_onnx_is_caught(bundle: Bundle, weights: Weights, tmp_path: Path) -> None:
    contents = {}
    for name in (ONNX_FILE, ONNX_TRACE_FILE):
        model = onnx.load_from_string(bundle.read(name))
        for node in model.graph.node:
            node.op_type = "Identity" if node.op_type == "Relu" else node.op_type
        contents[name] = model.SerializeToString()
    faulty = republish(bundle, tmp_path, contents)
    expect_caught(faulty, weights, ["onnx", "onnx-reference"], "relu")


def test_one_bit_between_the_torch_runtimes_is_caught(
    bundle: Bundle, weights: Weights, tmp_path: Path
) -> None:
    """Far within every bound, but they run the same kernels (T0)."""
    weight = weights["linear2.weight"].copy()
    weight[2] = np.nextafter(weight[2], np.float32(np.inf))
    contents = written_from({**weights, "linear2.weight": weight}, bundle.manifest.stages)
    faulty = republish(bundle, tmp_path, {TORCHSCRIPT_FILE: contents[TORCHSCRIPT_FILE]})
    scripted = compare_all(faulty, weights)["torchscript"]
    assert scripted.tiers == {"T0": "fails", "T1": "holds", "T2": "holds", "T3": "not judged"}
    assert scripted.first_diverging_stage == "linear2"
    assert "has other bits than in eager cpu float32" in scripted.violations[0].text


def test_a_runtime_is_not_failed_by_another(
    bundle: Bundle, weights: Weights, tmp_path: Path
) -> None:
    contents = written_from(nudged(weights), bundle.manifest.stages)
    faulty = republish(bundle, tmp_path, {TORCHSCRIPT_FILE: contents[TORCHSCRIPT_FILE]})
    images = synthetic_images(faulty.manifest, weights)
    order: tuple[Runtime, ...] = ("torchscript", "pt2", "eager")
    report = compare(faulty, weights, images, variants_of(order, ("cpu",)))
    assert [one.status for one in report.comparisons] == ["fails", "holds", "holds"]


def test_an_untraced_file_that_differs_is_caught(
    bundle: Bundle, weights: Weights, tmp_path: Path
) -> None:
    contents = written_from(last_nudged(weights), bundle.manifest.stages)
    faulty = republish(bundle, tmp_path, {ONNX_FILE: contents[ONNX_FILE]})
    onnx_comparison = compare_all(faulty, weights)["onnx"]
    assert onnx_comparison.tiers["T0"] == "fails"
    assert "has other bits than in an untraced run" in str(onnx_comparison.divergence)


class TamperedRunner:
    """The ONNX runner with its traces changed on the way."""

    batch_invariant = False

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


def tally_of(
    bundle: Bundle, weights: Weights, runner: Runner, images: np.ndarray | None = None
) -> Tally:
    stages = bundle.manifest.stages
    if images is None:
        images = probe_images(stages, weights, 0, 1)
    tally = Tally(stages, runner, {})
    precisions: tuple[Precision, ...] = ("float32", "tf32")
    tally.add(images, {p: reference_of(stages, weights, images, p) for p in precisions})
    return tally


def put_nan(traced: dict[str, np.ndarray]) -> None:
    traced["linear2"][5, 3] = np.nan


def shuffle(traced: dict[str, np.ndarray]) -> None:
    for name in traced:
        traced[name] = traced[name][::-1].copy()


def shorten(traced: dict[str, np.ndarray]) -> None:
    for name in traced:
        traced[name] = traced[name][:-1]


@pytest.mark.parametrize(
    ("tamper", "stage", "message"),
    [
        (put_nan, "linear2", r"element \[3\] of image 5 is nan"),
        (lambda traced: traced.pop("relu"), "relu", "is missing"),
        (shorten, "input", r"has shape \[259, 28, 28\], expected \[260, 28, 28\]"),
        (shuffle, "input", "diverges"),
        (lambda t: t.update(relu=t["relu"].astype(np.float64)), "relu", "dtype float64"),
    ],
    ids=["NaN on one side", "stage missing", "fewer images", "other images", "other dtype"],
)
def test_a_wrong_output_is_caught_at_its_stage(
    bundle: Bundle,
    weights: Weights,
    tamper: Callable[[dict[str, np.ndarray]], object],
    stage: str,
    message: str,
) -> None:
    runner = TamperedRunner(open_runner(bundle, "onnx", "cpu"), tamper)
    violations = tally_of(bundle, weights, runner).violations()
    divergence = first_divergence(violations)
    assert divergence
    assert divergence.stage == stage
    assert [one for one in violations if one.tier == "T1" and re.search(message, one.text)]


def test_nan_is_an_infinite_error(bundle: Bundle, weights: Weights) -> None:
    tally = tally_of(bundle, weights, TamperedRunner(open_runner(bundle, "onnx", "cpu"), put_nan))
    (figures,) = (s for s in tally.record("x").stages if s.stage == "linear2")
    assert (figures.max_error, figures.margin, figures.max_ulps) == (np.inf, np.inf, np.inf)


@pytest.mark.parametrize(("share", "diverges"), [(0.9, False), (1.1, True)])
def test_one_element_decides_not_the_mean(
    bundle: Bundle, weights: Weights, share: float, diverges: bool
) -> None:
    images = random_images(50, (28, 28))
    reference = reference_of(bundle.manifest.stages, weights, images)
    exact, bound = (part["linear1"][31, 77] for part in (reference.values, reference.bounds))

    def push(traced: dict[str, np.ndarray]) -> None:
        traced["linear1"][31, 77] = exact + share * bound

    runner = TamperedRunner(open_runner(bundle, "onnx", "cpu"), push)
    divergence = first_divergence(tally_of(bundle, weights, runner, images).violations())
    assert bool(divergence) == diverges
    assert not divergence or "element [77] of image 31 is" in divergence.text


def test_a_stage_that_is_missing_has_no_figures(
    bundle: Bundle, weights: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Zeros would read as a perfect stage."""

    def trace(runner: Any, images: np.ndarray, stages: Sequence[str]) -> dict[str, np.ndarray]:  # noqa: ANN401 (torch's runner, mypy need not know which)
        return original(runner, images, [name for name in stages if name != "relu"])

    original = Pt2Runner.trace
    monkeypatch.setattr(Pt2Runner, "trace", trace)
    one = compare_all(bundle, weights)["pt2"]
    assert one.record
    assert [stage.stage for stage in one.record.stages] == [
        "input",
        "flatten",
        "linear1",
        "linear2",
        "output",
    ]
    assert one.first_diverging_stage == "relu"
    images = synthetic_images(bundle.manifest, weights)
    report = compare(bundle, weights, images, variants_of(["pt2", "onnx"], ["cpu"]))
    assert draw_heatmap(report, bundle.manifest.stages).startswith(b"\x89PNG")


def test_a_batch_dependent_runtime_is_caught(bundle: Bundle, weights: Weights) -> None:
    def drift(traced: dict[str, np.ndarray]) -> None:
        if len(traced["linear1"]) > 1:
            traced["linear1"] = np.nextafter(traced["linear1"], np.float32(np.inf))

    runner = TamperedRunner(open_runner(bundle, "onnx", "cpu"), drift)
    runner.batch_invariant = True
    (violation,) = tally_of(bundle, weights, runner, random_images(20, (28, 28))).violations()
    assert (violation.tier, violation.stage) == ("T0", "linear1")
    assert "has other bits than in runs of one image" in violation.text


class Tf32Runner:
    """The forward pass as a tensor core computes it: factors cut to 11 significant bits."""

    runtime: Runtime = "onnx"
    batch_invariant = False

    def __init__(self, bundle: Bundle, weights: Weights, precision: Precision) -> None:
        self.device: Device = "cuda"
        self.provider = "simulated"
        self.precision: Precision = precision
        self._stages = bundle.manifest.stages
        self._weights = weights

    def trace(self, images: np.ndarray, stages: Sequence[str]) -> dict[str, np.ndarray]:
        values, value = {}, images
        for stage in self._stages:
            if stage.operation == "Flatten":
                value = value.reshape(len(value), -1)
            elif stage.operation == "Linear":
                weight, bias = (self._weights[f"{stage.name}.{p}"] for p in ("weight", "bias"))
                value = cut(value) @ cut(weight).T + bias
            elif stage.operation == "ReLU":
                value = np.maximum(value, 0)
            values[stage.name] = value
        return {name: values[name] for name in stages}

    def predict(self, images: np.ndarray) -> np.ndarray:
        return self.trace(images, ["output"])["output"]


def cut(array: np.ndarray) -> np.ndarray:
    return (array.view(np.uint32) & np.uint32(0xFFFFE000)).view(np.float32)


def test_simulated_tf32_is_caught_at_the_first_layer(bundle: Bundle, weights: Weights) -> None:
    tally = tally_of(bundle, weights, Tf32Runner(bundle, weights, "float32"))
    divergence = first_divergence(tally.violations())
    assert divergence
    assert (divergence.tier, divergence.stage) == ("T1", "linear1")


def test_declared_tf32_is_within_its_own_bound(bundle: Bundle, weights: Weights) -> None:
    runner = Tf32Runner(bundle, weights, "tf32")
    assert not Tally(bundle.manifest.stages, runner, {}).used_its_precision
    tally = tally_of(bundle, weights, runner)
    assert tally.used_its_precision
    assert first_divergence(tally.violations()) is None


def test_nan_at_a_lower_precision_is_a_divergence(bundle: Bundle, weights: Weights) -> None:
    runner = TamperedRunner(open_runner(bundle, "onnx", "cpu"), put_nan)
    runner.precision = "tf32"
    tally = tally_of(bundle, weights, runner)
    assert tally.used_its_precision
    divergence = first_divergence(tally.violations())
    assert divergence
    assert divergence.stage == "linear2"


def test_a_runtime_that_raises_fails_alone(
    bundle: Bundle, weights: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> dict[str, np.ndarray]:
        raise MemoryError("no room")

    monkeypatch.setattr("export.runtimes.torch.Pt2Runner.trace", fail)
    images = synthetic_images(bundle.manifest, weights)
    report = compare(bundle, weights, images, variants_of(devices=("cpu",)))
    found = {one.runtime: one for one in report.comparisons}
    assert found["pt2"].status == "fails"
    assert found["pt2"].divergence == "MemoryError: no room"
    assert {one.status for name, one in found.items() if name != "pt2"} == {"holds"}


def test_the_oracle_is_not_the_bundles_own_runtime(bundle: Bundle, weights: Weights) -> None:
    """It follows the weights that it is given."""
    images = probe_images(bundle.manifest.stages, weights, 0, 1)
    one, other = (
        NumpyRunner(bundle.manifest.stages, w).trace(images) for w in (weights, nudged(weights))
    )
    assert (one["linear1"] != other["linear1"]).any()


# Every change in every runtime is caught above by what the server's start calls, check_vectors.
@pytest.mark.parametrize(
    ("runtime", "change", "stage"),
    [
        ("onnx", transposed, "linear2"),
        ("pt2", transposed, "linear2"),
        ("torchscript", nudged, "linear1"),
    ],
)
def test_the_server_refuses_a_diverging_bundle_by_stage(
    bundle: Bundle, tmp_path: Path, runtime: Runtime, change: Change, stage: str
) -> None:
    """Every hash is right: the files were written wrongly, or the runtime computes wrongly."""
    changed = change(read_weights(bundle))
    republish(bundle, tmp_path, written_from(changed, bundle.manifest.stages))
    done = run_server_until_it_ends(
        "--models-dir", str(tmp_path), "--runtime", runtime, "--device", "cpu"
    )
    assert done.returncode == 1
    assert f"{runtime} on " in done.stderr
    assert f"does not compute this model: stage '{stage}' diverges" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_runtime_that_fails_with_interventions_is_named(
    bundle: Bundle, weights: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU whose memory other programs have taken meanwhile."""

    def fail(*_: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr("export.runtimes.onnx.OnnxRunner.intervene", fail)
    variants = variants_of(runtimes=["onnx"], devices=["cpu"])
    report = compare(bundle, weights, synthetic_images(bundle.manifest, weights), variants)
    assert [one.status for one in report.comparisons] == ["fails"]
    assert "onnx can't run with interventions: out of memory" in str(report.comparisons[0].reason)
    with pytest.raises(ParityError, match="can't run with interventions"):
        check_vectors(bundle, open_runner(bundle, "onnx", "cpu"))
