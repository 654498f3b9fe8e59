"""The Open Inference Protocol's service, called through the stubs of our own .proto."""

from collections.abc import Iterator
from typing import Any, get_args

import grpc
import numpy as np
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from grpc_status import rpc_status

from export.bundle import Bundle
from forward.v1 import forward_pb2 as pb
from forward.v1 import forward_pb2_grpc
from forward_client import ForwardClient
from inference import open_inference_pb2 as oip
from inference import open_inference_pb2_grpc
from server.api.open_inference.service import PLATFORMS
from server.config import ServerSettings
from tests.support.bundles import random_images
from tests.support.servers import RunningServer, metric, start_held_server, wait_until

SERVICE = "inference.GRPCInferenceService"
IMAGES = random_images(2, (28, 28), seed=5)
BYTES = np.round(IMAGES * 255).astype(np.uint8)
Stub = open_inference_pb2_grpc.GRPCInferenceServiceStub


@pytest.fixture(scope="module")
def stub(served: RunningServer) -> Iterator[Stub]:
    with grpc.insecure_channel(served.address) as channel:
        yield Stub(channel)


def typed(array: np.ndarray) -> oip.ModelInferRequest:
    """Return a request with the elements in the fields of their type, as KServe documents it."""
    datatype, field = (
        ("UINT8", "uint_contents") if array.dtype == np.uint8 else ("FP32", "fp32_contents")
    )
    tensor = oip.ModelInferRequest.InferInputTensor(
        name="images",
        datatype=datatype,
        shape=array.shape,
        contents=oip.InferTensorContents(**{field: array.ravel().tolist()}),
    )
    return oip.ModelInferRequest(model_name="mnist", inputs=[tensor])


def raw(array: np.ndarray, *outputs: str) -> oip.ModelInferRequest:
    tensor = oip.ModelInferRequest.InferInputTensor(
        name="images", datatype="UINT8", shape=array.shape
    )
    wanted = [oip.ModelInferRequest.InferRequestedOutputTensor(name=name) for name in outputs]
    return oip.ModelInferRequest(
        model_name="mnist", inputs=[tensor], outputs=wanted, raw_input_contents=[array.tobytes()]
    )


def failure(error: Any) -> grpc.Call:  # noqa: ANN401 (the stubs do not say that it is a call)
    assert isinstance(error, grpc.Call)
    return error


@pytest.mark.parametrize("array", [IMAGES, BYTES], ids=["float", "uint8"])
def test_typed_contents_get_raw_logits_of_predict(
    stub: Stub, client: ForwardClient, array: np.ndarray
) -> None:
    response = stub.ModelInfer(typed(array), timeout=60)
    (output,) = response.outputs
    assert (output.name, output.datatype, tuple(output.shape)) == ("logits", "FP32", (2, 10))
    assert not output.HasField("contents")
    assert list(response.raw_output_contents) == [client.predict(array).logits.tobytes()]


def test_a_full_batch_of_typed_floats_is_accepted(stub: Stub, client: ForwardClient) -> None:
    images = random_images(1024, (28, 28), seed=6)
    response = stub.ModelInfer(typed(images), timeout=60)
    assert list(response.raw_output_contents) == [client.predict(images).logits.tobytes()]


def test_every_fault_is_a_field_violation(stub: Stub) -> None:
    request = raw(BYTES[:, :27], "softmax")
    request.inputs[0].name = "input"
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(request, timeout=60)
    status = rpc_status.from_call(failure(caught.value))
    assert status is not None
    detail, request_info = status.details
    found = error_details_pb2.BadRequest()
    assert detail.Unpack(found)
    assert request_info.Is(error_details_pb2.RequestInfo.DESCRIPTOR)
    fields = {violation.field for violation in found.field_violations}
    assert fields == {"inputs[0].name", "inputs[0].shape", "outputs[0].name"}


def test_undecodable_bytes_are_an_invalid_argument(served: RunningServer) -> None:
    with grpc.insecure_channel(served.address) as channel:
        call: Any = channel.unary_unary(f"/{SERVICE}/ModelInfer")
        with pytest.raises(grpc.RpcError) as caught:
            call(b"\xff", timeout=60)
    assert failure(caught.value).code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "inference.ModelInferRequest" in failure(caught.value).details()


def test_malformed_model_names_and_versions_are_not_found(
    stub: Stub,
) -> None:
    for name, version in (("", ""), ("mnist", "1" * 5000), ("mnist", "0")):
        request = raw(BYTES)
        request.model_name, request.model_version = name, version
        with pytest.raises(grpc.RpcError) as caught:
            stub.ModelInfer(request, timeout=60)
        assert failure(caught.value).code() is grpc.StatusCode.NOT_FOUND
        assert "this server has 'mnist' version 1" in failure(caught.value).details()


@pytest.mark.parametrize("name", ["mnist", "mnist_trace"])
def test_the_largest_batch_of_the_configuration_is_the_largest_answered(
    stub: Stub, name: str
) -> None:
    config = stub.ModelConfig(oip.ModelConfigRequest(name=name), timeout=60).config
    most = np.zeros((config.max_batch_size, 28, 28), np.uint8)
    request = raw(most)
    request.model_name = name
    response = stub.ModelInfer(request, timeout=60)
    assert [each.name for each in response.outputs] == [each.name for each in config.output]
    more = raw(np.concatenate((most, most[:1])))
    more.model_name = name
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(more, timeout=60)
    assert failure(caught.value).code() is grpc.StatusCode.INVALID_ARGUMENT


def test_calls_are_counted_by_method_and_batcher(served: RunningServer, stub: Stub) -> None:
    labels = {
        "grpc_service": SERVICE,
        "grpc_method": "ModelInfer",
        "grpc_type": "unary",
        "grpc_code": "OK",
    }

    def counts() -> tuple[float, ...]:
        images = (
            metric(served, "forward_images_total", batcher=batcher)
            for batcher in ("predict", "trace")
        )
        return (metric(served, "grpc_server_handled_total", **labels), *images)

    before = counts()
    stub.ModelInfer(raw(BYTES), timeout=60)
    stub.ModelInfer(raw(BYTES, "logits"), timeout=60)
    plain = counts()
    stub.ModelInfer(raw(BYTES, "logits", "relu"), timeout=60)
    traced = counts()
    assert np.subtract(plain, before).tolist() == [2, 4, 0]
    assert np.subtract(traced, plain).tolist() == [1, 0, 2]


def test_health_knows_the_service(served: RunningServer) -> None:
    with grpc.insecure_channel(served.address) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)  # the stubs have no methods
        response = health.Check(health_pb2.HealthCheckRequest(service=SERVICE), timeout=60)
    assert response.status == health_pb2.HealthCheckResponse.SERVING


def test_reflection_serves_a_client_without_the_proto(served: RunningServer) -> None:
    with grpc.insecure_channel(served.address) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        assert SERVICE in database.get_services()
        service = DescriptorPool(database).FindServiceByName(SERVICE)
        ours = oip.DESCRIPTOR.services_by_name["GRPCInferenceService"]
        assert [each.name for each in service.methods] == [each.name for each in ours.methods]
        assert "ModelInfer" in service.methods_by_name


def refusal(stub: Stub) -> grpc.StatusCode:
    """Return how a call ends that is not answered, for it is held if it was let in."""
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(raw(BYTES), timeout=1)
    return failure(caught.value).code()


def test_a_draining_server_is_live_but_not_ready(bundle: Bundle) -> None:
    image = pb.Tensor(dtype=pb.DATA_TYPE_UINT8, shape=[28, 28], data=bytes(784))
    with start_held_server(bundle) as held, grpc.insecure_channel(held.address) as channel:
        stub, forward = Stub(channel), forward_pb2_grpc.ForwardServiceStub(channel)
        model = oip.ModelReadyRequest(name="mnist")
        assert stub.ServerReady(oip.ServerReadyRequest(), timeout=60).ready
        assert stub.ModelReady(model, timeout=60).ready
        running = forward.Predict.future(pb.PredictRequest(images=image), timeout=60)
        assert held.runner.started.acquire(timeout=30)
        draining = held.drain(30)
        wait_until(lambda: not stub.ServerReady(oip.ServerReadyRequest(), timeout=60).ready)
        assert not stub.ModelReady(model, timeout=60).ready
        assert stub.ServerLive(oip.ServerLiveRequest(), timeout=60).live
        wait_until(lambda: refusal(stub) is grpc.StatusCode.UNAVAILABLE)
        held.runner.let_go.set()
        assert len(running.result(timeout=60).logits.data) == 40
        draining.result(timeout=60)


def test_every_runtime_of_the_server_has_a_platform() -> None:
    runtimes = get_args(ServerSettings.model_fields["runtime"].annotation)
    assert runtimes
    assert set(PLATFORMS) == set(runtimes)
