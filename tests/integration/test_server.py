"""A real server process, called over loopback with real MNIST images."""

import contextlib
import re
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from grpc_status import rpc_status

from export.architecture import Runtime
from export.bundle import Bundle
from export.runtimes import Runner, open_runner
from forward.v1 import forward_pb2 as pb
from forward.v1 import forward_pb2_grpc
from forward_client import ForwardClient, ForwardError
from tests.support.bundles import REPOSITORY, random_images, reference_of
from tests.support.servers import RunningServer, handled, scrape, start_server
from training.data import Data

STAGES = ["input", "flatten", "linear1", "relu", "linear2", "output"]


def test_served_decisions_are_those_of_eager_torch(
    client: ForwardClient, bundle: Bundle, eager: Runner, mnist: Data, test_pixels: np.ndarray
) -> None:
    images = mnist.test.images.numpy()
    served = np.concatenate(
        [client.predict(images[start : start + 500]).classes for start in range(0, 10_000, 500)]
    )
    np.testing.assert_array_equal(served, eager.predict(test_pixels).argmax(axis=1))
    accuracy = float((served == mnist.test.labels.numpy()).mean())
    assert accuracy == bundle.manifest.metrics["test_accuracy"]
    assert accuracy >= 0.985


def test_bytes_and_floats_give_the_same_bits(
    client: ForwardClient, mnist: Data, test_pixels: np.ndarray
) -> None:
    as_bytes = client.predict(mnist.test.images[:64].numpy())
    as_floats = client.predict(test_pixels[:64])
    assert as_bytes.logits.tobytes() == as_floats.logits.tobytes()
    assert (as_bytes.model_name, as_bytes.model_version, as_bytes.runtime) == ("mnist", 1, "onnx")


@pytest.mark.one_transport
@pytest.mark.parametrize("runtime", ["onnx", "pt2", "torchscript"])
def test_every_stage_is_within_bounds_of_torch(
    bundle: Bundle,
    weights: dict[str, np.ndarray],
    eager: Runner,
    test_pixels: np.ndarray,
    runtime: str,
) -> None:
    images = test_pixels[:200]
    with start_server("--runtime", runtime) as server, ForwardClient(server.address) as caller:
        trace = caller.trace(images, detail="full")
        assert trace.logits.tobytes() == caller.predict(images).logits.tobytes()
    assert trace.runtime == server.ready["runtime"] == runtime
    assert [stage.name for stage in trace.stages] == STAGES
    bounds = reference_of(bundle.manifest.stages, weights, images).bounds
    oracle = eager.trace(images, STAGES)
    for stage in trace.stages:
        assert stage.values is not None
        assert stage.values.shape == stage.shape == oracle[stage.name].shape
        difference = np.abs(stage.values.astype(np.float64) - oracle[stage.name])
        assert (difference <= 2 * bounds[stage.name]).all(), stage.name
    assert trace.stages[-1].values is not None
    assert trace.stages[-1].values.tobytes() == trace.logits.tobytes()


def test_trace_returns_what_is_asked_for(client: ForwardClient, bundle: Bundle) -> None:
    images = random_images(3, (28, 28))
    trace = client.trace(images, {"relu": "top_k", "flatten": "statistics"}, top_k=2)
    flatten, relu = trace.stages
    assert (flatten.name, flatten.operation, flatten.shape) == ("flatten", "Flatten", (3, 784))
    assert (relu.name, relu.operation, relu.flops_per_image) == ("relu", "ReLU", 128)
    assert flatten.values is None
    assert flatten.statistics["mean"] == pytest.approx(float(images.mean()), rel=1e-6)
    assert [len(top) for top in relu.top_values] == [2, 2, 2]
    values = open_runner(bundle, "onnx", "cpu").trace(images, ["relu"])["relu"]
    assert relu.top_values[1][0] == (int(values[1].argmax()), float(values[1].max()))
    assert trace.run_seconds > 0
    assert trace.queue_seconds >= 0


def test_get_model_tells_what_the_manifest_says(client: ForwardClient, bundle: Bundle) -> None:
    model = client.model()
    assert (model.name, model.version, model.device) == ("mnist", 1, "cpu")
    assert model.input_shape == (28, 28)
    assert model.labels == tuple("0123456789")
    assert list(model.stages) == STAGES
    assert model.metrics == bundle.manifest.metrics


def stub(server: RunningServer) -> tuple[grpc.Channel, forward_pb2_grpc.ForwardServiceStub]:
    channel = grpc.insecure_channel(server.address)
    return channel, forward_pb2_grpc.ForwardServiceStub(channel)


def refusal(server: RunningServer, request: pb.PredictRequest | pb.TraceRequest) -> dict[str, str]:
    """Return the violations of a refused request, by field."""
    channel, service = stub(server)
    method: Any = service.Predict if isinstance(request, pb.PredictRequest) else service.Trace
    with channel, pytest.raises(grpc.RpcError) as refused:
        method(request, timeout=10)
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    status = rpc_status.from_call(refused.value)  # type: ignore[arg-type] # the error is the call
    assert status is not None
    bad_request = error_details_pb2.BadRequest()
    assert status.details[0].Unpack(bad_request)
    for violation in bad_request.field_violations:
        assert f"{violation.field}: {violation.description}" in status.message
    return {fault.field: fault.description for fault in bad_request.field_violations}


def tensor(array: np.ndarray, **changed: object) -> pb.Tensor:
    fields = {"dtype": 1, "shape": array.shape, "data": array.tobytes(), **changed}
    return pb.Tensor(**fields)  # type: ignore[arg-type] # the fields are given by name


IMAGE = np.zeros((1, 28, 28), np.float32)


@pytest.mark.parametrize(
    ("images", "field", "expected", "got"),
    [
        (tensor(IMAGE.reshape(784)), "images.shape", "[28, 28] or [N, 28, 28]", "[784]"),
        (tensor(IMAGE[:, :, :27]), "images.shape", "[28, 28] or [N, 28, 28]", "[1, 28, 27]"),
        (tensor(IMAGE, dtype=0), "images.dtype", "DATA_TYPE_FLOAT32", "DATA_TYPE_UNSPECIFIED"),
        (tensor(IMAGE, data=b"\0" * 100), "images.data", "3136 bytes", "100"),
        (tensor(IMAGE + np.float32(np.nan)), "images.data", "finite values", "784 NaN"),
        (tensor(IMAGE + 255), "images.data", "from 0 to 1", "255; send UINT8 or divide by 255"),
        (tensor(IMAGE[:0]), "images.shape", "1 to 1024 images", "0"),
        (None, "images", "required", "not set"),
    ],
)
def test_bad_images_are_refused_by_field(
    served: RunningServer, images: pb.Tensor | None, field: str, expected: str, got: str
) -> None:
    found = refusal(served, pb.PredictRequest(images=images))
    assert list(found) == [field]
    assert expected in found[field]
    assert got in found[field]
    assert refusal(served, pb.TraceRequest(images=images)) == found


def test_an_unknown_stage_is_refused_by_name(served: RunningServer) -> None:
    selection = [pb.StageSelection(name="softmax")]
    found = refusal(served, pb.TraceRequest(images=tensor(IMAGE), stages=selection))
    assert found == {"stages[0].name": f"expected one of {', '.join(STAGES)}, got 'softmax'"}


def test_more_faults_than_a_status_holds_are_counted(served: RunningServer) -> None:
    """In letters that take many bytes on the wire."""
    selection = [pb.StageSelection(name=letter * 80) for letter in "é日😀" * 20]
    found = refusal(served, pb.TraceRequest(images=tensor(IMAGE), stages=selection))
    assert list(found)[:3] == ["stages[0].name", "stages[1].name", "stages[2].name"]
    assert found["request"] == f"at least {60 - (len(found) - 1)} more violations"


def test_two_faults_in_one_request_are_both_named(served: RunningServer) -> None:
    wrong = tensor(np.full((1, 28, 27), np.nan, np.float32))
    selection = [pb.StageSelection(name="softmax")]
    found = refusal(served, pb.TraceRequest(images=wrong, stages=selection))
    assert list(found) == ["images.shape", "images.data", "stages[0].name"]


def test_undecodable_bytes_are_an_invalid_argument(served: RunningServer) -> None:
    with grpc.insecure_channel(served.address) as channel:
        predict: Any = channel.unary_unary("/forward.v1.ForwardService/Predict")
        with pytest.raises(grpc.RpcError) as refused:
            predict(b"\xff\xff\xff", timeout=10)
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "expected a forward.v1.PredictRequest" in str(refused.value.details())


@pytest.mark.parametrize(
    ("name", "version"), [("resnet", 0), ("", 7), ("mnist", 2), ("mnist", -1), ("x" * 10**6, 0)]
)
def test_an_unserved_model_is_not_found(served: RunningServer, name: str, version: int) -> None:
    channel, service = stub(served)
    selector = pb.ModelSelector(name=name, version=version)
    requests = [
        (service.Predict, pb.PredictRequest(images=tensor(IMAGE), model=selector)),
        (service.Trace, pb.TraceRequest(images=tensor(IMAGE), model=selector)),
        (service.GetModel, pb.GetModelRequest(model=selector)),
        (service.GetTrainingHistory, pb.GetTrainingHistoryRequest(model=selector)),
        (service.GetParameters, pb.GetParametersRequest(model=selector)),
    ]
    with channel:
        for method, request in requests:
            with pytest.raises(grpc.RpcError) as refused:
                method(request, timeout=10)  # type: ignore[operator] # a union of stubs
            assert refused.value.code() == grpc.StatusCode.NOT_FOUND
            assert "this server has 'mnist' version 1" in str(refused.value.details())


def test_naming_the_served_model_changes_nothing(served: RunningServer) -> None:
    channel, service = stub(served)
    selector = pb.ModelSelector(name="mnist", version=1)
    with channel:
        named = service.Predict(pb.PredictRequest(images=tensor(IMAGE), model=selector))
        assert named == service.Predict(pb.PredictRequest(images=tensor(IMAGE[0])))


def test_reflection_gives_the_proto(
    served: RunningServer,
) -> None:
    with grpc.insecure_channel(served.address) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        assert {"forward.v1.ForwardService", "grpc.health.v1.Health"} <= set(
            database.get_services()
        )
        service = DescriptorPool(database).FindServiceByName("forward.v1.ForwardService")
        assert [m.name for m in service.methods] == [
            "Predict",
            "PredictStream",
            "Trace",
            "Attribute",
            "Compare",
            "GetTrainingHistory",
            "GetParameters",
            "GetModel",
        ]


def test_health_covers_server_and_services(client: ForwardClient) -> None:
    assert client.health() == "SERVING"
    assert client.health("forward.v1.ForwardService") == "SERVING"
    for name in ("x", "é" * 100_000):
        with pytest.raises(ForwardError, match=r"no service .*; health is known of") as unknown:
            client.health(name)
        assert unknown.value.code == "NOT_FOUND"


def test_watching_an_unknown_service_stays_open(served: RunningServer) -> None:
    with grpc.insecure_channel(served.address) as channel:
        watch = channel.unary_stream(
            "/grpc.health.v1.Health/Watch",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )(health_pb2.HealthCheckRequest(service="x"))
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        assert watch.is_active()
        watch.cancel()


INFO = "forward_model_info"


def test_metrics_count_calls_images_and_times(bundle: Bundle) -> None:
    with start_server() as server, ForwardClient(server.address) as caller:
        before = scrape(server)
        caller.predict(random_images(3, (28, 28)))
        caller.predict(random_images(2, (28, 28)))
        caller.trace(random_images(4, (28, 28)))
        with pytest.raises(ForwardError):
            caller.predict(random_images(1, (27, 28)))
        found = scrape(server)
    own = {key for key in found if key[0].startswith(("forward_", "grpc_"))}
    assert own <= set(before), "every series is there from the start"
    service = {"grpc_service": "forward.v1.ForwardService", "grpc_type": "unary"}

    def value(name: str, **labels: str) -> float:
        return found[name, frozenset(labels.items())]

    predict = {**service, "grpc_method": "Predict"}
    assert value("grpc_server_handled_total", **predict, grpc_code="OK") == 2
    assert value("grpc_server_handled_total", **predict, grpc_code="INVALID_ARGUMENT") == 1
    assert value("grpc_server_handling_seconds_count", **predict) == 3
    assert value("grpc_server_handling_seconds_sum", **predict) > 0
    assert value("forward_images_total", batcher="predict") == 5
    assert value("forward_images_total", batcher="trace") == 4
    assert value("forward_run_seconds_count", batcher="predict") == 2
    assert value("forward_queue_seconds_count", batcher="trace") == 1
    assert value("forward_run_images_sum", batcher="predict") == 5
    assert value("forward_run_images_bucket", batcher="predict", le="2.0") == 1
    assert value("forward_run_images_count", batcher="trace") == 1
    assert value("forward_queue_images") == 0
    ((info, shown),) = ((dict(ls), v) for (name, ls), v in found.items() if name == INFO)
    assert shown == 1
    named = {key: info.pop(key) for key in ("precision", "manifest_sha256")}
    assert info == {key: str(server.ready[key]) for key in info}
    assert named == {"precision": "float32", "manifest_sha256": bundle.manifest.sha256}
    assert 0 < value("forward_self_check_error_ratio") < 0.2  # of the logits: far from its bound
    (build,) = (dict(labels) for name, labels in found if name == "forward_build_info")
    assert bool(build["native"]) == (server.ready["transport"] == "native")


def test_a_call_is_counted_before_its_response(served: RunningServer) -> None:
    requests = {
        "OK": pb.PredictRequest(images=tensor(IMAGE)),
        "INVALID_ARGUMENT": pb.PredictRequest(),
        "NOT_FOUND": pb.PredictRequest(model=pb.ModelSelector(name="x")),
    }
    channel, service = stub(served)
    with channel:
        for code, request in requests.items():
            before = handled(served, "Predict", code)
            for count in range(1, 21):
                with contextlib.suppress(grpc.RpcError):
                    service.Predict(request, timeout=10)
                assert handled(served, "Predict", code) == before + count


def test_the_reference_lists_every_metric(served: RunningServer) -> None:
    reference = (REPOSITORY / "docs/reference/metrics.md").read_text()
    names = {
        re.sub("_(bucket|sum|count)$", "", name)
        for name, _ in scrape(served)
        if name.startswith(("forward_", "grpc_")) and not name.endswith("_created")
    }
    dropped = "forward_lane_observations_dropped_total"  # of the native transport alone
    assert (dropped in names) == (served.ready["transport"] == "native")
    assert len(names) > 30  # that of drift is there when the tests before sent enough images
    assert {name for name in names if f"`{name}`" not in reference} == set()


@pytest.mark.one_transport
@pytest.mark.parametrize("runtime", ["onnx", "pt2", "torchscript"])
def test_a_bundle_of_another_architecture_is_served(tiny: Bundle, runtime: Runtime) -> None:
    images = random_images(5, (3, 5))
    models_dir = tiny.path.parent.parent
    arguments = ("--models-dir", str(models_dir), "--model", "tiny", "--runtime", runtime)
    with start_server(*arguments) as server, ForwardClient(server.address) as caller:
        assert caller.model().input_shape == (3, 5)
        logits = caller.predict(images).logits
        shapes = [stage.shape for stage in caller.trace(images).stages]
    assert logits.tobytes() == open_runner(tiny, runtime, "cpu").predict(images).tobytes()
    assert shapes == [(5, 3, 5), (5, 15), (5, 4), (5, 4), (5, 2), (5, 2)]


def test_large_requests_with_unknown_fields_are_answered(
    served: RunningServer,
) -> None:
    unknown = b"\x1a" + b"\xa0\x9c\x01" + bytes(20_000)  # field 3 of ModelSelector, 20,000 bytes
    request = b"\x0a" + bytes([len(unknown) & 0x7F | 0x80, len(unknown) >> 7 & 0x7F | 0x80, 1])
    with grpc.insecure_channel(served.address) as channel:
        call: Any = channel.unary_unary("/forward.v1.ForwardService/GetModel")
        answer = pb.GetModelResponse.FromString(call(request + unknown, timeout=10))
    assert answer.model.name == "mnist"
