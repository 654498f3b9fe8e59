"""Attribute on a running server: what it answers, what it refuses."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from export.attribution.attribute import Question, attribute, needed_stages
from export.attribution.network import Network
from export.bundle import Bundle
from export.runtimes import Runner, open_runner
from forward.v1 import forward_pb2 as pb
from forward.v1.forward_pb2_grpc import ForwardServiceStub
from forward_client.arrays import array_of
from forward_client.messages import tensor_of
from server.api.forward_v1.attribution import response_bytes
from tests.support.bundles import REPOSITORY, publish_random_bundle, random_images
from tests.support.servers import RunningServer, start_server

IMAGES = (random_images(3, (28, 28)) * 255).astype(np.uint8)
PIXELS = IMAGES / np.float32(255)
IMAGE = tensor_of(IMAGES[0])
REGION = pb.ATTRIBUTION_METHOD_LINEAR_REGION
GRADIENTS = pb.ATTRIBUTION_METHOD_INTEGRATED_GRADIENTS
SALIENCY = pb.ATTRIBUTION_METHOD_SALIENCY


@pytest.fixture
def stub(served: RunningServer) -> Iterator[ForwardServiceStub]:
    with grpc.insecure_channel(served.address) as channel:
        yield ForwardServiceStub(channel)


@pytest.fixture(scope="module")
def onnx(bundle: Bundle) -> Runner:
    return open_runner(bundle, "onnx", "cpu")


@pytest.fixture(scope="module")
def network(bundle: Bundle, weights: dict[str, np.ndarray]) -> Network:
    return Network.of(bundle.manifest.stages, weights, "float32")


ASKED = [
    (pb.AttributeRequest(), Question()),
    (
        pb.AttributeRequest(method=REGION, target_class=0, other_class=8, stage="relu"),
        Question("linear_region", 0, 8, "relu"),
    ),
    (
        pb.AttributeRequest(method=GRADIENTS, stage="input", baseline=tensor_of(IMAGES[1])),
        Question("integrated_gradients", stage="input", baseline=PIXELS[1]),
    ),
    (
        pb.AttributeRequest(method=GRADIENTS, baseline=tensor_of(PIXELS[2])),
        Question("integrated_gradients", baseline=PIXELS[2]),
    ),
    (pb.AttributeRequest(method=SALIENCY, target_class=9), Question("saliency", 9)),
]


@pytest.mark.parametrize("asked", ASKED)
@pytest.mark.parametrize("images", [IMAGES, PIXELS, IMAGES[0]], ids=["uint8", "float32", "one"])
def test_the_answer_is_that_of_the_numerics(
    stub: ForwardServiceStub,
    onnx: Runner,
    network: Network,
    asked: tuple[pb.AttributeRequest, Question],
    images: np.ndarray,
) -> None:
    request, question = pb.AttributeRequest(images=tensor_of(images)), asked[1]
    request.MergeFrom(asked[0])
    pixels = PIXELS[:1] if images.ndim == 2 else PIXELS
    expected = attribute(
        network, onnx.trace(pixels, needed_stages(network, question.method)), question
    )
    response = stub.Attribute(request, timeout=20)
    np.testing.assert_array_equal(array_of(response.contributions), expected.contributions)
    assert response.HasField("stage_contributions") == (question.stage is not None)
    if expected.stage_contributions is not None:
        found = array_of(response.stage_contributions)
        np.testing.assert_array_equal(found, expected.stage_contributions)
    logits = onnx.predict(pixels)
    assert len(response.attributions) == len(pixels)
    for index, each in enumerate(response.attributions):
        assert each.target_class == expected.target[index]
        other = 0 if question.other_class is None else logits[index, question.other_class]
        assert each.score == float(logits[index, each.target_class]) - float(other)
        for name in ("bias", "stage_bias", "residual", "residual_bound"):
            assert getattr(each, name) == getattr(expected, name)[index]
    assert response.model == pb.ModelIdentity(name="mnist", version=1, runtime="onnx")
    assert response.run_seconds > 0
    assert response.queue_seconds >= 0


def test_deep_networks_are_attributed_completely(tmp_path: Path) -> None:
    publish_random_bundle(tmp_path, "deep", (6, 7), ("a", "b", "c"), (64, 32))
    images = random_images(9, (6, 7))
    arguments = ("--models-dir", str(tmp_path), "--model", "deep")
    with (
        start_server(*arguments) as running,
        grpc.insecure_channel(running.address) as channel,
    ):
        stub = ForwardServiceStub(channel)
        for method in (REGION, GRADIENTS):
            for stage in ("relu1", "relu2"):
                request = pb.AttributeRequest(images=tensor_of(images), method=method, stage=stage)
                response = stub.Attribute(request, timeout=20)
                sums = array_of(response.contributions).sum(axis=(1, 2), dtype=np.float64)
                units = array_of(response.stage_contributions).sum(axis=1, dtype=np.float64)
                for each, pixels, unit in zip(response.attributions, sums, units, strict=True):
                    assert abs(each.score - each.bias - pixels) <= each.residual_bound < 1e-4
                    assert unit + each.stage_bias == pytest.approx(each.score, abs=1e-5)


def refusal(stub: ForwardServiceStub, request: pb.AttributeRequest) -> dict[str, str]:
    """Return the violations of a refused request, by field."""
    with pytest.raises(grpc.RpcError) as refused:
        stub.Attribute(request, timeout=20)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    status = rpc_status.from_call(refused.value)  # type: ignore[arg-type] # the error is the call
    assert status is not None
    bad_request = error_details_pb2.BadRequest()
    assert status.details[0].Unpack(bad_request)
    return {fault.field: fault.description for fault in bad_request.field_violations}


def changed(**fields: object) -> pb.Tensor:
    tensor = tensor_of(PIXELS[0])
    return pb.Tensor(
        **{"dtype": tensor.dtype, "shape": tensor.shape, "data": tensor.data, **fields}  # type: ignore[arg-type] # by name
    )


@pytest.mark.parametrize(
    ("request_", "field", "text"),
    [
        (pb.AttributeRequest(method=9), "method", "ATTRIBUTION_METHOD_SALIENCY, got 9"),  # type: ignore[arg-type] # unknown
        (pb.AttributeRequest(target_class=10), "target_class", "from 0 to 9, got 10"),
        (pb.AttributeRequest(target_class=-1), "target_class", "from 0 to 9, got -1"),
        (pb.AttributeRequest(other_class=10), "other_class", "from 0 to 9, got 10"),
        (
            pb.AttributeRequest(target_class=0, other_class=0),
            "other_class",
            "another class than target_class, got 0 for both",
        ),
        (pb.AttributeRequest(stage="rule"), "stage", "expected one of input, flatten"),
        (pb.AttributeRequest(baseline=IMAGE), "baseline", "leave it out"),
        (pb.AttributeRequest(baseline=IMAGE, method=SALIENCY), "baseline", "leave it out"),
        (
            pb.AttributeRequest(baseline=changed(shape=[1, 28, 28]), method=GRADIENTS),
            "baseline.shape",
            "expected [28, 28], got [1, 28, 28]",
        ),
        (
            pb.AttributeRequest(baseline=changed(shape=[]), method=GRADIENTS),
            "baseline.shape",
            "expected [28, 28], got []",
        ),
        (
            pb.AttributeRequest(baseline=changed(dtype=0), method=GRADIENTS),
            "baseline.dtype",
            "DATA_TYPE_FLOAT32 or DATA_TYPE_UINT8",
        ),
        (
            pb.AttributeRequest(baseline=changed(data=b"1"), method=GRADIENTS),
            "baseline.data",
            "expected 3136 bytes",
        ),
        (
            pb.AttributeRequest(baseline=tensor_of(PIXELS[0] + 1), method=GRADIENTS),
            "baseline.data",
            "expected values from 0 to 1",
        ),
        (
            pb.AttributeRequest(
                baseline=tensor_of(PIXELS[0] * np.float32(np.nan)), method=GRADIENTS
            ),
            "baseline.data",
            "784 NaN",
        ),
    ],
)
def test_a_wrong_question_is_refused_by_its_field(
    stub: ForwardServiceStub, request_: pb.AttributeRequest, field: str, text: str
) -> None:
    asked = pb.AttributeRequest(images=IMAGE)
    asked.MergeFrom(request_)
    found = refusal(stub, asked)
    assert list(found) == [field]
    assert text in found[field]


def test_everything_wrong_is_named_at_once(stub: ForwardServiceStub) -> None:
    request = pb.AttributeRequest(
        method=7,  # type: ignore[arg-type] # unknown
        target_class=99,
        other_class=99,
        stage="none",
        baseline=pb.Tensor(dtype=pb.DATA_TYPE_UINT8, shape=[3], data=b"123"),
    )
    found = refusal(stub, request)
    assert set(found) == {
        "images",
        "method",
        "target_class",
        "other_class",
        "stage",
        "baseline.shape",
    }


def test_another_model_is_not_found(stub: ForwardServiceStub) -> None:
    request = pb.AttributeRequest(images=IMAGE, model=pb.ModelSelector(name="other"))
    with pytest.raises(grpc.RpcError, match="this server has 'mnist' version 1") as refused:
        stub.Attribute(request, timeout=20)
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND


def test_an_answer_over_the_limit_is_not_computed() -> None:
    with (
        start_server("--max-response-bytes", "8000") as running,
        grpc.insecure_channel(running.address) as channel,
    ):
        stub = ForwardServiceStub(channel)
        one = pb.AttributeRequest(images=IMAGE, stage="relu")
        assert stub.Attribute(one, timeout=20).ByteSize() <= 8000
        found = refusal(stub, pb.AttributeRequest(images=tensor_of(IMAGES[:2]), stage="flatten"))
    assert list(found) == ["images"]
    assert "allowed are 8000; send fewer images, or name no stage" in found["images"]


@pytest.mark.parametrize("images", [1, 7, 300])
@pytest.mark.parametrize("stage", ["", "flatten", "relu"])
def test_an_answer_is_no_larger_than_foretold(
    stub: ForwardServiceStub, bundle: Bundle, images: int, stage: str
) -> None:
    request = pb.AttributeRequest(
        images=tensor_of(random_images(images, (28, 28))), stage=stage, other_class=9
    )
    foretold = response_bytes(request, bundle.manifest.stages, images)
    size = stub.Attribute(request, timeout=20).ByteSize()
    assert size <= foretold <= size + 3 * 256 + 64 * images


def test_numpy_starts_no_threads_in_a_server() -> None:
    """They would wait for work in a loop, on the processors of other requests."""
    count = (
        "from server.start import prepare_process; prepare_process(); import os, numpy; "
        "numpy.ones((500, 500)) @ numpy.ones((500, 500)); "
        "print(len(os.listdir('/proc/self/task')))"
    )
    environment = {k: v for k, v in os.environ.items() if k != "OPENBLAS_NUM_THREADS"}
    done = subprocess.run(
        [sys.executable, "-c", count],
        env=environment,
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "1"
