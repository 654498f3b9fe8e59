"""ONNX is data, and a bundle's model has all of its data in itself: it names no other file."""

import contextlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from export.__main__ import main
from export.architecture import Runtime
from export.bundle import Bundle
from export.bundle.manifest import ONNX_FILE, ONNX_INTERVENTIONS_FILE, ONNX_TRACE_FILE
from export.errors import BundleError
from export.runtimes import open_runner
from tests.support.bundles import random_images, republish
from tests.support.commands import run_here
from tests.support.servers import run_server_until_it_ends

OUTSIDE = "holds all its data itself and names no other file"


def point_outside(tensor: onnx.TensorProto, location: str) -> np.ndarray:
    """Let a tensor's data lie in a file; return the data."""
    data = numpy_helper.to_array(tensor)
    tensor.ClearField("raw_data")
    tensor.ClearField("float_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in {"location": location, "offset": "0", "length": str(data.nbytes)}.items():
        tensor.external_data.add(key=key, value=value)
    return data


def as_initializer(model: onnx.ModelProto, location: str) -> np.ndarray:
    return point_outside(model.graph.initializer[0], location)


def as_constant(model: onnx.ModelProto, location: str) -> np.ndarray:
    tensor = model.graph.initializer.pop(0)
    data = point_outside(tensor, location)
    constant = helper.make_node("Constant", [], [tensor.name])
    constant.attribute.add(name="value", type=onnx.AttributeProto.TENSOR).t.CopyFrom(tensor)
    model.graph.node.insert(0, constant)
    return data


CHANGES = (as_initializer, as_constant)


def pointing_outside(
    tiny: Bundle,
    folder: Path,
    location: str,
    *,
    name: str = ONNX_FILE,
    change: Callable[[onnx.ModelProto, str], np.ndarray] = as_initializer,
) -> Bundle:
    """Return a bundle, its hashes right, whose weights are the right ones, in a file elsewhere."""
    model = onnx.load_from_string(tiny.read(name))
    data = change(model, location)
    working = folder / "working"
    working.mkdir()
    if not Path(location).is_absolute():
        (working / location).write_bytes(data.tobytes())
    return republish(tiny, folder / "outside", {name: model.SerializeToString()})


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", [ONNX_FILE, ONNX_TRACE_FILE, ONNX_INTERVENTIONS_FILE])
@pytest.mark.parametrize("location", ["near.bin", "../up.bin", "/etc/passwd"])
@pytest.mark.parametrize("runtime", ["onnx", "onnx-reference"])
def test_data_outside_the_bundle_are_refused(  # noqa: PLR0913, PLR0917 (each is a case)
    tiny: Bundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    runtime: Runtime,
    location: str,
    name: str,
    change: Callable[[onnx.ModelProto, str], np.ndarray],
) -> None:
    """Also in the working directory, from which a model in memory would take them."""
    outside = pointing_outside(tiny, tmp_path, location, name=name, change=change)
    monkeypatch.chdir(tmp_path / "working")
    open_runner(tiny, runtime, "cpu").predict(random_images(1, (3, 5)))
    with pytest.raises(BundleError, match=OUTSIDE) as refused:
        open_runner(outside, runtime, "cpu")
    assert str(outside.path / name) in str(refused.value)


@pytest.mark.parametrize("command", ["verify", "compare"])
def test_verify_and_compare_refuse_external_data(
    tiny: Bundle, tmp_path: Path, command: str
) -> None:
    outside = pointing_outside(tiny, tmp_path, "near.bin")
    for runtime in ("onnx", "onnx-reference"):
        with contextlib.chdir(tmp_path / "working"):
            done = run_here(main, command, outside.path, "--runtime", runtime)
        assert done.returncode == 1
        said = "".join((done.stdout + done.stderr).split())  # a table breaks lines
        assert "".join(OUTSIDE.split()) in said, done
        assert "Traceback" not in done.stderr


def test_data_in_a_hidden_file_are_refused(tiny: Bundle, tmp_path: Path) -> None:
    """`verify` overlooks hidden files as leftovers of file systems: no model may read one."""
    outside = pointing_outside(tiny, tmp_path, ".near.bin")
    (tmp_path / "working" / ".near.bin").rename(outside.path / ".near.bin")
    assert outside.unlisted_files() == []
    done = run_here(main, "verify", outside.path, "--runtime", "onnx")
    assert done.returncode == 1
    assert OUTSIDE in done.stderr


def test_a_server_refuses_external_data(tiny: Bundle, tmp_path: Path) -> None:
    outside = pointing_outside(tiny, tmp_path, "../up.bin", name=ONNX_TRACE_FILE)
    models_dir = str(outside.path.parent.parent)
    done = run_server_until_it_ends("--models-dir", models_dir, "--model", "tiny")
    assert done.returncode == 1
    assert f"can't start: {outside.path / ONNX_TRACE_FILE}" in done.stderr
    assert OUTSIDE in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("runtime", ["onnx", "onnx-reference"])
def test_a_custom_operator_is_refused(tiny: Bundle, tmp_path: Path, runtime: Runtime) -> None:
    """No library of operators is ever loaded."""
    model = onnx.load_from_string(tiny.read(ONNX_FILE))
    model.graph.node[0].domain = "com.example"
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    foreign = republish(tiny, tmp_path / "foreign", {ONNX_FILE: model.SerializeToString()})
    with pytest.raises(BundleError, match="expected a graph of ONNX's own operators"):
        open_runner(foreign, runtime, "cpu")
