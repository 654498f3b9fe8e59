"""Compare on a running server: the figures are those of `export compare`."""

from collections.abc import Iterator

import grpc
import numpy as np
import pytest

from export.bundle import Bundle
from export.bundle.manifest import TORCHSCRIPT_FILE
from export.bundle.weights import read_weights
from export.parity.certificates import Prover
from export.parity.compare import ImageSet, compare, variants_of
from export.writers import write_all
from forward.v1 import forward_pb2 as pb
from forward.v1.forward_pb2_grpc import ForwardServiceStub
from forward_client.messages import tensor_of
from tests.support.bundles import publish_random_bundle, random_images, republish
from tests.support.servers import RunningServer, start_server

SHAPE, LABELS, IMAGES = (6, 7), ("a", "b", "c"), random_images(100, (6, 7))
NAMES = ["numpy", "onnx", "eager", "torchscript", "pt2"]
FIRST_SECONDS = 250  # the first call imports torch


def nudge(bundle: Bundle) -> np.ndarray:
    """Return what makes every decision the class that was the rarest."""
    proof = Prover(bundle.manifest.stages, read_weights(bundle)).prove(IMAGES, "float32")
    counts = np.bincount(proof.certificates.predicted, minlength=3)
    return np.where(np.arange(3) == counts.argmin(), np.float32(1000), np.float32(0))


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle whose TorchScript was written from other weights."""
    bundle = publish_random_bundle(tmp_path_factory.mktemp("models"), "random", SHAPE, LABELS)
    weights = read_weights(bundle)
    nudged = weights["linear2.bias"] + nudge(bundle)
    stages = bundle.manifest.stages
    wrong = write_all(stages, {**weights, "linear2.bias": nudged}, 0, 1)[TORCHSCRIPT_FILE]
    return republish(bundle, tmp_path_factory.mktemp("faulty"), {TORCHSCRIPT_FILE: wrong})


@pytest.fixture(scope="module")
def server(faulty: Bundle, transport: str) -> Iterator[RunningServer]:
    models_dir = str(faulty.path.parent.parent)
    arguments = ("--models-dir", models_dir, "--model", "random", "--transport", transport)
    with start_server(*arguments, "--compare-programs") as running:
        yield running


@pytest.fixture(scope="module")
def stub(server: RunningServer) -> Iterator[ForwardServiceStub]:
    with grpc.insecure_channel(server.address) as channel:
        yield ForwardServiceStub(channel)


@pytest.fixture(scope="module")
def response(stub: ForwardServiceStub) -> pb.CompareResponse:
    request = pb.CompareRequest(images=tensor_of(IMAGES))
    return stub.Compare(request, timeout=FIRST_SECONDS)


def test_its_figures_are_those_of_export_compare(
    response: pb.CompareResponse, faulty: Bundle
) -> None:
    assert [one.runtime for one in response.runtimes] == NAMES
    assert response.model.runtime == "onnx"
    variants = variants_of(("onnx", "eager", "torchscript", "pt2"), ("cpu",))
    report = compare(faulty, read_weights(faulty), ImageSet("given", IMAGES), variants)
    for found, expected in zip(response.runtimes[1:], report.comparisons, strict=True):
        assert expected.record
        assert response.certified_share == expected.record.certified_share
        assert len(found.stages) == 6
        for stage, figures in zip(found.stages, expected.record.stages, strict=True):
            assert stage.stage == figures.stage
            # torch's own kernels depend on the batch, and a comparison has batches of its own.
            assert stage.max_error == pytest.approx(figures.max_error, rel=0.5)
            assert stage.mean_error == pytest.approx(figures.mean_error, rel=0.1)
            assert stage.max_bound_share == pytest.approx(figures.margin, rel=0.5)
            assert stage.max_ulps == pytest.approx(figures.max_ulps, rel=0.5)


def test_the_oracle_rounded_is_within_half_an_ulp(response: pb.CompareResponse) -> None:
    rounded = response.runtimes[0]
    assert 0 < max(stage.max_ulps for stage in rounded.stages) <= 0.5 + 1e-6
    assert (rounded.diverges_at, rounded.different_decisions) == ("", 0)


def test_a_wrong_runtime_is_named_with_its_stage(
    response: pb.CompareResponse, faulty: Bundle
) -> None:
    diverging = {one.runtime: one.diverges_at for one in response.runtimes if one.diverges_at}
    assert diverging == {"torchscript": "linear2"}
    weights = read_weights(faulty)
    exact = Prover(faulty.manifest.stages, weights).prove(IMAGES, "float32").certificates
    different = (exact.predicted != nudge(faulty).argmax()).sum()
    assert different > 0
    assert {one.runtime: one.different_decisions for one in response.runtimes} == {
        **dict.fromkeys(NAMES, 0),
        "torchscript": different,
    }
    (torchscript,) = (one for one in response.runtimes if one.runtime == "torchscript")
    assert [stage.stage for stage in torchscript.stages if stage.max_bound_share > 1] == [
        "linear2",
        "output",
    ]


def test_named_runtimes_come_in_the_order_asked_for(stub: ForwardServiceStub) -> None:
    request = pb.CompareRequest(
        images=tensor_of(np.round(IMAGES * 255).astype(np.uint8)), runtimes=["onnx", "numpy"]
    )
    found = stub.Compare(request, timeout=30)
    assert [one.runtime for one in found.runtimes] == ["onnx", "numpy"]
    assert not any(one.diverges_at for one in found.runtimes)


def test_everything_wrong_with_a_request_is_named(stub: ForwardServiceStub) -> None:
    images = pb.Tensor(dtype=pb.DATA_TYPE_UINT8, shape=[1, 6, 7], data=bytes(41))
    request = pb.CompareRequest(images=images, runtimes=["onnx", "tensorrt", "onnx"])
    with pytest.raises(grpc.RpcError) as refused:
        stub.Compare(request, timeout=30)
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    text = refused.value.details() or ""
    assert "images.data" in text
    assert "runtimes[1]: this server has numpy, onnx, eager, torchscript, pt2, got 'tensorrt'" in (
        text
    )
    assert "runtimes[2]: 'onnx' is named twice" in text


def test_another_model_is_not_found(stub: ForwardServiceStub) -> None:
    request = pb.CompareRequest(images=tensor_of(IMAGES), model=pb.ModelSelector(name="other"))
    with pytest.raises(grpc.RpcError) as refused:
        stub.Compare(request, timeout=30)
    assert refused.value.code() == grpc.StatusCode.NOT_FOUND
