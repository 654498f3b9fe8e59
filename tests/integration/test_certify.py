"""Bounds, certificates and statistics by unit on a running server, in every runtime that serves."""

from collections.abc import Iterator

import grpc
import numpy as np
import pytest

from export.bundle import Bundle
from export.bundle.weights import read_weights
from export.parity.certificates import Proof, Prover
from export.runtimes.changes import Changes, StageChanges
from forward.v1 import forward_pb2 as pb
from forward.v1.forward_pb2_grpc import ForwardServiceStub
from forward_client.arrays import array_of
from forward_client.messages import tensor_of
from tests.support.bundles import publish_random_bundle, random_images
from tests.support.servers import RunningServer, start_server

SHAPE, LABELS, IMAGES = (6, 7), ("a", "b", "c"), random_images(5, (6, 7))
RUNTIMES = ("onnx", "torchscript", "pt2")
TIMEOUT = 30


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return publish_random_bundle(tmp_path_factory.mktemp("models"), "random", SHAPE, LABELS)


@pytest.fixture(scope="module", params=RUNTIMES)
def server(
    request: pytest.FixtureRequest, bundle: Bundle, transport: str
) -> Iterator[RunningServer]:
    models_dir = str(bundle.path.parent.parent)
    arguments = ("--models-dir", models_dir, "--model", "random", "--runtime", request.param)
    limits = ("--max-response-bytes", "7000")
    with start_server(*arguments, *limits, "--transport", transport) as running:
        yield running


@pytest.fixture(scope="module")
def stub(server: RunningServer) -> Iterator[ForwardServiceStub]:
    with grpc.insecure_channel(server.address) as channel:
        yield ForwardServiceStub(channel)


def proof_of(bundle: Bundle, pixels: np.ndarray, changes: Changes | None = None) -> Proof:
    prover = Prover(bundle.manifest.stages, read_weights(bundle))
    return prover.prove(pixels, "float32", changes or {})


def check(response: pb.TraceResponse, proof: Proof) -> None:
    """The answer has the bounds of its stages and the certificates of the proof."""
    assert len(response.stages) > 1
    for stage in response.stages:
        assert stage.bound == pytest.approx(proof.reference.bounds[stage.name].max(), rel=1e-9)
        assert stage.HasField("bound")
    expected = proof.certificates
    assert len(response.certificates) == len(expected.gap)
    for number, found in enumerate(response.certificates):
        assert found.predicted_class == expected.predicted[number]
        assert found.nearest_class == expected.nearest[number]
        assert found.gap == pytest.approx(expected.gap[number], rel=1e-9)
        assert found.bound == pytest.approx(expected.bound[number], rel=1e-9)
        assert found.certified == expected.certified[number]


def test_bounds_and_certificates_are_those_of_export(
    stub: ForwardServiceStub, bundle: Bundle
) -> None:
    levels = np.round(IMAGES * 255).astype(np.uint8)
    sent = {"float32": IMAGES, "uint8": levels}
    for images in sent.values():
        pixels = images if images.dtype == np.float32 else images / np.float32(255)
        proof = proof_of(bundle, pixels)
        check(stub.Trace(pb.TraceRequest(images=tensor_of(images), certify=True)), proof)
        assert proof.certificates.certified.all()


def test_a_changed_pass_is_certified_as_changed(stub: ForwardServiceStub, bundle: Bundle) -> None:
    """Of image 1 unit 2 is scaled; of image 3 all logits become those of image 0."""
    request = pb.TraceRequest(
        images=tensor_of(IMAGES),
        certify=True,
        interventions=[
            pb.Intervention(stage="relu", units=[2], images=[1], scale=-3.5),
            pb.Intervention(stage="linear2", images=[3], from_image=0),
        ],
    )
    one, three = np.ones(1, np.float32), np.ones(3, np.float32)
    inf = np.float32(np.inf)
    at, logits = np.array([1 * 4 + 2]), np.arange(3)
    changes = {
        "relu": StageChanges(at, at, one * -3.5, one * -0.0, one * -inf, one * inf),
        "linear2": StageChanges(logits + 9, logits, three, three * -0.0, three * -inf, three * inf),
    }
    proof = proof_of(bundle, IMAGES, changes)
    check(stub.Trace(request, timeout=TIMEOUT), proof)
    assert proof.certificates.gap[3] == proof.certificates.gap[0]
    assert proof.certificates.bound[3] > proof.certificates.bound[0]


def test_without_certify_nothing_is_proven(stub: ForwardServiceStub) -> None:
    response = stub.Trace(pb.TraceRequest(images=tensor_of(IMAGES)), timeout=TIMEOUT)
    assert not response.certificates
    assert not any(stage.HasField("bound") for stage in response.stages)


def test_certifying_changes_no_bit_of_a_trace(stub: ForwardServiceStub) -> None:
    request = pb.TraceRequest(images=tensor_of(IMAGES), detail=pb.DETAIL_TOP_K)
    plain = stub.Trace(request, timeout=TIMEOUT)
    request.certify = True
    certified = stub.Trace(request, timeout=TIMEOUT)
    assert certified.logits == plain.logits
    for one, other in zip(certified.stages, plain.stages, strict=True):
        assert (one.statistics, one.top_values) == (other.statistics, other.top_values)


def test_statistics_by_unit_are_float64_numpys(stub: ForwardServiceStub) -> None:
    request = pb.TraceRequest(images=tensor_of(IMAGES[:2]), detail=pb.DETAIL_FULL)
    for name in ("input", "linear1", "relu", "output"):
        request.stages.add(name=name)
    full = stub.Trace(request, timeout=TIMEOUT)
    request.detail = pb.DETAIL_UNITS
    units = stub.Trace(request, timeout=TIMEOUT)
    for whole, one in zip(full.stages, units.stages, strict=True):
        values = array_of(whole.values).astype(np.float64)
        expected = {
            "mean": values.mean(axis=0),
            "standard_deviation": values.std(axis=0),
            "min": values.min(axis=0),
            "max": values.max(axis=0),
            "zero_share": (values == 0).mean(axis=0),
        }
        assert not one.HasField("values")
        assert one.statistics == whole.statistics
        for name, array in expected.items():
            found = array_of(getattr(one.units, name))
            np.testing.assert_allclose(found, array, rtol=1e-6, atol=1e-7)
    assert not full.stages[0].HasField("units")


def test_an_answer_over_the_limit_is_refused(stub: ForwardServiceStub) -> None:
    request = pb.TraceRequest(images=tensor_of(random_images(200, SHAPE)))
    stub.Trace(request, timeout=TIMEOUT)  # is within it
    for field, value in (("certify", True), ("detail", pb.DETAIL_UNITS)):
        larger = pb.TraceRequest(images=request.images)
        setattr(larger, field, value)
        with pytest.raises(grpc.RpcError) as refused:
            stub.Trace(larger, timeout=TIMEOUT)
        assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert "allowed are 7000" in (refused.value.details() or "")
