"""Interventions on a running server, in every runtime that serves."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest

from export.bundle import Bundle, open_bundle
from export.bundle.weights import read_weights
from export.runtimes.numpy import NumpyRunner
from forward.v1 import forward_pb2 as pb
from forward.v1.forward_pb2_grpc import ForwardServiceStub
from forward_client.arrays import array_of
from forward_client.messages import tensor_of
from tests.support.bundles import MODELS_DIR, publish_random_bundle, random_images, republish
from tests.support.servers import RunningServer, start_server

SHAPE, LABELS, IMAGES = (6, 7), ("a", "b", "c"), random_images(3, (6, 7))
RUNTIMES = ("onnx", "torchscript", "pt2")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return publish_random_bundle(tmp_path_factory.mktemp("models"), "random", SHAPE, LABELS)


@pytest.fixture(scope="module", params=RUNTIMES)
def server(
    request: pytest.FixtureRequest, bundle: Bundle, transport: str
) -> Iterator[RunningServer]:
    models_dir = str(bundle.path.parent.parent)
    arguments = ("--models-dir", models_dir, "--model", "random", "--runtime", request.param)
    with start_server(*arguments, "--transport", transport) as running:
        yield running


@pytest.fixture(scope="module")
def stub(server: RunningServer) -> Iterator[ForwardServiceStub]:
    with grpc.insecure_channel(server.address) as channel:
        yield ForwardServiceStub(channel)


def traced(
    stub: ForwardServiceStub, *interventions: pb.Intervention, unchanged_logits: bool = False
) -> pb.TraceResponse:
    request = pb.TraceRequest(
        images=tensor_of(IMAGES),
        interventions=interventions,
        detail=pb.DETAIL_FULL,
        unchanged_logits=unchanged_logits,
    )
    return stub.Trace(request, timeout=20)


def values(response: pb.TraceResponse) -> dict[str, np.ndarray]:
    return {stage.name: array_of(stage.values) for stage in response.stages}


def test_everything_after_a_change_is_computed_from_it(
    stub: ForwardServiceStub, bundle: Bundle
) -> None:
    plain = values(traced(stub))
    response = traced(
        stub,
        pb.Intervention(stage="relu", units=[1], zero=True),
        pb.Intervention(stage="relu", units=[0, 2], images=[1], set=pb.Values(values=[3, -4])),
        pb.Intervention(stage="relu", units=[2], images=[2], from_image=1),
        pb.Intervention(stage="linear2", scale=2),
    )
    found, expected = values(response), plain["relu"].copy()
    expected[:, 1] = 0
    expected[1, [0, 2]] = 3, -4
    expected[2, 2] = -4
    np.testing.assert_array_equal(found["relu"], expected)
    weights = read_weights(bundle)
    exact = expected.astype(np.float64) @ weights["linear2.weight"].T + weights["linear2.bias"]
    np.testing.assert_allclose(found["linear2"], 2 * exact, atol=1e-5)
    np.testing.assert_array_equal(found["output"], found["linear2"])
    np.testing.assert_array_equal(array_of(response.logits), found["linear2"])
    for before in ("input", "flatten", "linear1"):
        np.testing.assert_array_equal(found[before], plain[before])
    changed = [stage.name for stage in response.stages if stage.changed]
    assert changed == ["relu", "linear2"]


def test_the_first_stage_can_be_changed(stub: ForwardServiceStub, bundle: Bundle) -> None:
    black = traced(stub, pb.Intervention(stage="input", units=range(21, 42), zero=True))
    images = IMAGES.copy().reshape(3, -1)
    images[:, 21:] = 0
    oracle = NumpyRunner(bundle.manifest.stages, read_weights(bundle))
    expected = oracle.trace(images.reshape(IMAGES.shape))
    for name, found in values(black).items():
        np.testing.assert_allclose(found, expected[name], atol=1e-5)


NOTHING = (
    pb.Intervention(stage="linear1", scale=1),
    pb.Intervention(stage="relu", clamp=pb.Clamp(min=-1e30)),
    pb.Intervention(stage="flatten", images=[1], from_image=1),
)


@pytest.mark.parametrize("intervention", NOTHING, ids=["scale", "clamp", "from_image"])
def test_what_changes_nothing_changes_no_bit(
    stub: ForwardServiceStub, intervention: pb.Intervention
) -> None:
    plain, changed = traced(stub), traced(stub, intervention)
    assert plain.logits == changed.logits
    for one, other in zip(plain.stages, changed.stages, strict=True):
        assert one.values == other.values


def test_the_unchanged_logits_are_those_of_predict(stub: ForwardServiceStub) -> None:
    zero = pb.Intervention(stage="relu", zero=True)
    predicted = stub.Predict(pb.PredictRequest(images=tensor_of(IMAGES)), timeout=20)
    response = traced(stub, zero, unchanged_logits=True)
    assert response.unchanged_logits == predicted.logits
    assert response.logits != predicted.logits
    assert traced(stub, unchanged_logits=True).unchanged_logits == predicted.logits
    assert not traced(stub, zero).HasField("unchanged_logits")


def test_concurrent_interventions_change_their_own_requests(stub: ForwardServiceStub) -> None:
    changes: Sequence[tuple[pb.Intervention, ...]] = [
        (),
        *((pb.Intervention(stage="relu", units=[unit], add=unit + 1),) for unit in range(4)),
    ]
    alone = [traced(stub, *each) for each in changes]
    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(lambda number: traced(stub, *changes[number % 5]), range(200)))
    for number, response in enumerate(together):
        expected = alone[number % 5]
        assert response.logits == expected.logits
        assert [one.values for one in response.stages] == [one.values for one in expected.stages]


def test_wrong_interventions_and_images_are_named_at_once(stub: ForwardServiceStub) -> None:
    request = pb.TraceRequest(
        images=pb.Tensor(dtype=pb.DATA_TYPE_UINT8, shape=[2, 6, 7], data=b"1"),
        interventions=[pb.Intervention(stage="rule", zero=True), pb.Intervention(stage="relu")],
        stages=[pb.StageSelection(name="none")],
    )
    with pytest.raises(grpc.RpcError) as raised:
        stub.Trace(request, timeout=20)
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    for part in ("images.data: ", "stages[0].name: ", "interventions[0].stage: ", "[1].change: "):
        assert part in str(raised.value.details())


def test_a_bundle_without_interventions_says_so(bundle: Bundle, tmp_path: Path) -> None:
    files = tuple(file for file in bundle.manifest.files if file.name != "interventions.onnx")
    older = Bundle(bundle.path, bundle.manifest.model_copy(update={"files": files}))
    republish(older, tmp_path, {})
    with (
        start_server("--models-dir", str(tmp_path), "--model", "random") as running,
        grpc.insecure_channel(running.address) as channel,
    ):
        stub = ForwardServiceStub(channel)
        assert len(traced(stub).stages) == 6
        with pytest.raises(grpc.RpcError, match="exported before interventions"):
            traced(stub, pb.Intervention(stage="relu", zero=True))


def test_the_bundled_model_takes_interventions() -> None:
    assert "interventions.onnx" in open_bundle(MODELS_DIR / "mnist" / "1").names
