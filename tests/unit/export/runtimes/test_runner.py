"""A runtime is opened by its name, and what it lacks is named."""

import sys

import pytest

from export.architecture import Runtime
from export.bundle import Bundle
from export.errors import RuntimeUnavailableError
from export.runtimes import open_runner


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
