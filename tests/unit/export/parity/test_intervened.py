"""A graph that makes other changes than it is told to is caught, at its stage."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from export.bundle import Bundle
from export.bundle.manifest import ONNX_INTERVENTIONS_FILE
from export.bundle.weights import read_weights
from export.errors import ParityError
from export.parity.compare import compare, synthetic_images, variants_of
from export.parity.intervened import probe_changes
from export.parity.vectors import check_vectors
from export.runtimes import open_runner
from tests.support.bundles import publish_random_bundle, republish


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return publish_random_bundle(tmp_path_factory.mktemp("models"), "tiny")


def replaced(operation: str, other: str) -> Callable[[onnx.ModelProto], None]:
    """Return what puts another operation in the place of the last of its kind."""

    def change(model: onnx.ModelProto) -> None:
        node = [node for node in model.graph.node if node.op_type == operation][-1]
        node.op_type = other

    return change


def with_other_bits(model: onnx.ModelProto) -> None:
    weight = next(each for each in model.graph.initializer if each.name == "linear2.weight")
    array = onnx.numpy_helper.to_array(weight)
    other = np.nextafter(array, np.float32(np.inf), dtype=np.float32)
    weight.CopyFrom(onnx.numpy_helper.from_array(other, weight.name))


FAULTS = {
    "max": (replaced("Max", "Min"), "with interventions, stage 'linear2' diverges"),
    "mul": (replaced("Mul", "Add"), "stage 'linear2' has other bits|stage 'linear2' diverges"),
    "add": (replaced("Add", "Sub"), "with interventions, stage 'linear2' diverges"),
    "bits": (with_other_bits, "stage 'linear2' has other bits without changes than in a trace"),
}


@pytest.mark.parametrize(("change", "text"), FAULTS.values(), ids=FAULTS)
def test_a_wrong_graph_of_interventions_is_caught(
    tiny: Bundle, tmp_path: Path, change: Callable[[onnx.ModelProto], None], text: str
) -> None:
    model = onnx.load_from_string(tiny.read(ONNX_INTERVENTIONS_FILE))
    change(model)
    faulty = republish(tiny, tmp_path, {ONNX_INTERVENTIONS_FILE: model.SerializeToString()})
    with pytest.raises(ParityError, match=text):
        check_vectors(faulty, open_runner(faulty, "onnx", "cpu"))
    weights = read_weights(faulty)
    images = synthetic_images(faulty.manifest, weights)
    (found,) = compare(faulty, weights, images, variants_of(["onnx"], ["cpu"])).comparisons
    assert found.status == "fails"
    assert found.is_broken


@pytest.mark.parametrize("runtime", ["onnx", "onnx-reference", "eager", "torchscript", "pt2"])
def test_right_interventions_pass_in_every_runtime(tiny: Bundle, runtime: str) -> None:
    runner = open_runner(tiny, runtime, "cpu")  # type: ignore[arg-type] # one of Runtime
    assert runner.can_intervene
    assert check_vectors(tiny, runner).images > 0


def test_the_probes_change_every_stage_but_the_output(tiny: Bundle) -> None:
    stages = tiny.manifest.stages
    probes = probe_changes(stages, 3)
    assert set(probes[-1]) == {stage.name for stage in stages} - {"output"}
    assert [set(each) for each in probes[:-1]] == [{name} for name in probes[-1]]
    for changes in probes[-1].values():
        assert len(np.unique(changes.at)) == len(changes.at) > 0
