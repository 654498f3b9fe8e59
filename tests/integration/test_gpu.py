"""What runs on a GPU: every runtime, the server, a training. Seen to pass on an H200."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from export.architecture import Runtime
from export.bundle import Bundle
from export.parity.compare import ImageSet, Report, Variant, compare
from export.runtimes.onnx import CUDA_PROVIDER
from forward_client import ForwardClient, Intervention
from server.repository.loader import GPU_DRIVER
from tests.support.bundles import REPOSITORY, random_images, reference_of
from tests.support.servers import GPU, NO_GPU, RunningServer, run_server_until_it_ends, start_server
from tests.support.trainings import train_in_a_process, weights_hash

HAS_GPU = GPU_DRIVER.exists() and CUDA_PROVIDER in onnxruntime.get_available_providers()
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not HAS_GPU, reason="needs a GPU and onnxruntime-gpu"),
]
RUNTIMES: tuple[Runtime, ...] = ("onnx", "eager", "torchscript", "pt2")
SERVED = ("onnx", "torchscript", "pt2")
IMAGES = random_images(20, (28, 28))
Weights = dict[str, np.ndarray]


def report_of(bundle: Bundle, weights: Weights, runtime: Runtime, pixels: np.ndarray) -> Report:
    variants = [
        Variant(runtime=runtime, device="cuda", precision="float32"),
        Variant(runtime=runtime, device="cuda", precision="tf32"),
    ]
    return compare(bundle, weights, ImageSet("given", pixels), variants)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_every_stage_is_within_its_bound(
    bundle: Bundle, weights: Weights, runtime: Runtime, test_pixels: np.ndarray
) -> None:
    float32, tf32 = report_of(bundle, weights, runtime, test_pixels).comparisons
    assert float32.status == "holds", float32.divergence
    assert float32.record
    assert float32.record.certified_share == 1
    assert tf32.divergence is None
    assert [tf32.tiers[tier] for tier in ("T0", "T1")] == ["holds"] * 2
    assert tf32.record
    errors = [max(s.max_error for s in record.stages) for record in (float32.record, tf32.record)]
    assert errors[1] > 10 * errors[0], "TF32 was not used, or not only where it was asked for"


@pytest.fixture(scope="module", params=SERVED)
def on_gpu(request: pytest.FixtureRequest) -> Iterator[RunningServer]:
    with start_server("--runtime", request.param, "--device", "auto", **GPU) as server:
        yield server


def test_auto_takes_the_gpu_and_says_so(on_gpu: RunningServer) -> None:
    assert (on_gpu.ready["device"], on_gpu.ready["device_setting"]) == ("cuda", "auto")
    with ForwardClient(on_gpu.address) as client:
        assert client.model().device == "cuda"


@pytest.mark.parametrize("images", [1, 7, 20])
def test_answers_are_within_the_bounds(
    on_gpu: RunningServer, bundle: Bundle, weights: Weights, images: int
) -> None:
    pixels = IMAGES[:images]
    reference = reference_of(bundle.manifest.stages, weights, pixels)
    with ForwardClient(on_gpu.address, timeout_seconds=60) as client:
        logits = client.predict(pixels).logits
        trace = client.trace(pixels, detail="full")
        unchanged = [Intervention.scale("relu", by=1.0)]
        changed = client.trace(pixels, interventions=unchanged, unchanged_logits=True)
    assert (np.abs(logits - reference.values["output"]) <= reference.bounds["output"]).all()
    for stage in trace.stages:
        assert stage.values is not None
        error = np.abs(stage.values - reference.values[stage.name])
        assert (error <= reference.bounds[stage.name]).all(), stage.name
    assert changed.unchanged_logits is not None
    same = (trace.logits, changed.logits, changed.unchanged_logits)
    assert all(other.tobytes() == logits.tobytes() for other in same)


@pytest.mark.parametrize("runtime", SERVED)
def test_a_gpu_that_rounds_factors_is_not_served(runtime: str) -> None:
    """The driver's variable makes every product of matrices TF32, whatever a program sets."""
    arguments = ("--grpc-port", "0", "--metrics-port", "0", "--runtime", runtime)
    done = run_server_until_it_ends(*arguments, NVIDIA_TF32_OVERRIDE="1", **GPU)
    assert done.returncode == 1
    assert "does not compute this model: stage 'linear1' diverges" in done.stderr


@pytest.mark.parametrize("runtime", SERVED)
def test_a_hidden_gpu_is_one_clear_error(runtime: str) -> None:
    arguments = ("--grpc-port", "0", "--metrics-port", "0", "--runtime", runtime)
    done = run_server_until_it_ends(*arguments, "--device", "cuda", **NO_GPU)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "no CUDA" in done.stderr
    assert "Traceback" not in done.stderr
    with start_server("--runtime", runtime, **NO_GPU) as server:
        assert (server.ready["device"], server.ready["device_setting"]) == ("cpu", "auto")
        assert '"device falls back to cpu"' in server.log_path.read_text()


def test_a_report_in_json_stays_json_without_the_gpu(bundle: Bundle) -> None:
    command = [sys.executable, "-m", "export", "compare", str(bundle.path), "--json"]
    done = subprocess.run(
        [*command, "--runtime", "onnx"],
        cwd=REPOSITORY,
        env={**os.environ, **NO_GPU},
        capture_output=True,
        text=True,
        check=True,
    )
    assert [one["status"] for one in json.loads(done.stdout)["comparisons"]] == ["holds", "not run"]


def test_a_training_on_the_gpu_gives_the_same_bits_again(tmp_path: Path) -> None:
    arguments = ("--dataset", "digits", "--epochs", "2", "--hidden", "24", "--device", "cuda")
    for _ in range(2):
        done = train_in_a_process(*arguments, "--models-dir", tmp_path)
        assert done.returncode == 0, done.stderr
    assert weights_hash(tmp_path, 1) == weights_hash(tmp_path, 2)
    manifest = json.loads((tmp_path / "digits" / "1" / "manifest.json").read_text())
    assert manifest["hardware"]["gpu"]
    compared = {(record["runtime"], record["provider"]) for record in manifest["parity"]}
    assert {("onnx", "CUDAExecutionProvider"), ("pt2", "torch.cuda")} <= compared
