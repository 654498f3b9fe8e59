"""A runtime is opened by its name, and what it lacks is named."""

import sys
from pathlib import Path
from typing import Any

import onnxruntime
import pytest

from export.architecture import Runtime
from export.bundle import Bundle
from export.bundle.manifest import ONNX_FILE
from export.errors import BundleError, RuntimeUnavailableError
from export.runtimes import open_runner
from export.runtimes.onnx import CUDA_PROVIDER, load_cuda_libraries
from tests.support.bundles import republish


@pytest.mark.parametrize(
    ("runtime", "package", "advice"),
    [
        ("onnx", "onnxruntime", "install it: pip install onnxruntime"),
        ("onnx-reference", "onnx", "install the train extra"),
        ("pt2", "torch", "install the train extra"),
    ],
)
def test_a_missing_package_gets_advice_of_its_own(
    bundle: Bundle,
    runtime: Runtime,
    package: str,
    advice: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in ("onnx", "reference", "torch"):  # to be imported again
        monkeypatch.delitem(sys.modules, f"export.runtimes.{module}", raising=False)
    monkeypatch.setitem(sys.modules, package, None)  # which blocks its import
    with pytest.raises(RuntimeUnavailableError) as missing:
        open_runner(bundle, runtime, "cpu")
    assert str(missing.value).startswith(f"runtime {runtime!r} needs {package!r}; {advice}")


@pytest.fixture
def gpu_build(monkeypatch: pytest.MonkeyPatch) -> None:
    """An onnxruntime-gpu that finds no GPU; its text is from a machine that had none."""
    real = onnxruntime.InferenceSession

    def opened(model: bytes, options: object, providers: Any, **settings: object) -> object:  # noqa: ANN401 (as its own)
        if providers[0][0] == CUDA_PROVIDER:
            assert settings["enable_fallback"] == 0, "it would print to standard output"
            raise RuntimeError(
                "/src/cuda_call.cc:154 bool CudaCall(ERRTYPE, const char*) CUDA failure 100: no "
                "CUDA-capable device is detected ; GPU=-1 ; hostname=box ; file=/src/a.cc"
            )
        return real(model, options, providers=providers)

    monkeypatch.setattr(onnxruntime, "InferenceSession", opened)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA_PROVIDER])


@pytest.mark.usefixtures("gpu_build")
def test_a_gpu_that_onnxruntime_cannot_use_is_named_shortly(
    bundle: Bundle, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(RuntimeUnavailableError) as unusable:
        open_runner(bundle, "onnx", "cuda")
    expected = "CUDA failure 100: no CUDA-capable device is detected"
    assert str(unusable.value) == f"{CUDA_PROVIDER} can't be used: {expected}"
    assert capfd.readouterr().out == ""


@pytest.mark.usefixtures("gpu_build")
def test_a_damaged_graph_is_no_fault_of_the_gpu(bundle: Bundle, tmp_path: Path) -> None:
    damaged = republish(bundle, tmp_path, {ONNX_FILE: b"no graph"})
    with pytest.raises(BundleError, match="can't load it"):
        open_runner(damaged, "onnx", "cuda")


def test_missing_libraries_of_cuda_do_not_spoil_the_output(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    said = "Failed to load libcublas.so.13:\n cannot open"
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: print(said))  # as the real one does
    load_cuda_libraries.cache_clear()
    try:
        assert load_cuda_libraries() == "Failed to load libcublas.so.13: cannot open"
        assert load_cuda_libraries(), "it is asked again when a session did not get the GPU"
    finally:
        load_cuda_libraries.cache_clear()
    assert capfd.readouterr().out == ""
