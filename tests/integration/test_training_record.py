"""GetTrainingHistory and GetParameters on a running server."""

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from export.bundle import Bundle
from export.bundle.manifest import HISTORY_FILE, SNAPSHOTS_FILE
from export.bundle.publishing import write_bundle
from export.bundle.snapshots import read_snapshots
from export.bundle.weights import read_weights
from forward.v1 import forward_pb2 as pb
from forward.v1.forward_pb2_grpc import ForwardServiceStub
from forward_client import ForwardClient
from tests.support.bundles import history_of, publish_random_bundle, republish, with_record
from tests.support.servers import RunningServer, start_server

SHAPE, LABELS, HIDDEN = (6, 7), ("a", "b", "c"), (8, 5)
LAYERS = ["linear1", "linear2", "linear3"]
EPOCHS, KEPT = 9, [0, 1, 3, 9]
TYPES = {pb.DATA_TYPE_FLOAT32: "<f4", pb.DATA_TYPE_FLOAT16: "<f2"}
History, Asked = pb.GetTrainingHistoryRequest, pb.GetParametersRequest


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    bundle = publish_random_bundle(
        tmp_path_factory.mktemp("models"), "trained", SHAPE, LABELS, HIDDEN
    )
    return with_record(bundle, tmp_path_factory.mktemp("recorded"), epochs=EPOCHS, kept=KEPT)


@pytest.fixture(scope="module")
def server(recorded: Bundle, transport: str) -> Iterator[RunningServer]:
    with serving(recorded, "--transport", transport) as running:
        yield running


@pytest.fixture(scope="module")
def stub(server: RunningServer) -> Iterator[ForwardServiceStub]:
    with grpc.insecure_channel(server.address) as channel:
        yield ForwardServiceStub(channel)


def serving(bundle: Bundle, *options: str) -> AbstractContextManager[RunningServer]:
    models_dir = str(bundle.path.parent.parent)
    return start_server("--models-dir", models_dir, "--model", bundle.manifest.name, *options)


def refused(stub: ForwardServiceStub, request: Any) -> tuple[str, str]:  # noqa: ANN401 (either)
    """Return the status and the text of a refused request."""
    call: Any = stub.GetParameters if isinstance(request, Asked) else stub.GetTrainingHistory
    with pytest.raises(grpc.RpcError) as failed:
        call(request, timeout=30)
    return failed.value.code().name, failed.value.details() or ""


def arrays_of(response: pb.GetParametersResponse) -> dict[str, np.ndarray]:
    return {
        f"{stage.stage}.{part}": np.frombuffer(tensor.data, TYPES[tensor.dtype]).reshape(
            tuple(tensor.shape)
        )
        for stage in response.stages
        for part, tensor in (("weight", stage.weight), ("bias", stage.bias))
    }


def assert_same(found: dict[str, np.ndarray], expected: Any) -> None:  # noqa: ANN401 (a mapping)
    assert list(found) == list(expected)
    for name, array in found.items():
        assert array.dtype == expected[name].dtype
        np.testing.assert_array_equal(array, expected[name])


def test_the_history_is_that_of_the_bundle(stub: ForwardServiceStub, recorded: Bundle) -> None:
    response = stub.GetTrainingHistory(History(), timeout=30)
    lines = [json.loads(line) for line in recorded.read(HISTORY_FILE).splitlines()]
    assert len(response.epochs) == len(lines) == EPOCHS
    for epoch, line in zip(response.epochs, lines, strict=True):
        for field in epoch.DESCRIPTOR.fields:
            assert getattr(epoch, field.name) == line[field.name]
    assert list(response.snapshot_epochs) == KEPT
    assert response.served_epoch == EPOCHS
    assert response.model == pb.ModelIdentity(name="trained", version=1, runtime="onnx")


def test_the_parameters_are_by_default_the_served_ones(
    stub: ForwardServiceStub, recorded: Bundle
) -> None:
    response = stub.GetParameters(Asked(), timeout=30)
    assert not response.HasField("epoch")
    weights = read_weights(recorded)
    assert_same(arrays_of(response), {name: weights[name] for name in names_of(LAYERS)})


def names_of(stages: list[str]) -> list[str]:
    return [f"{stage}.{part}" for stage in stages for part in ("weight", "bias")]


@pytest.mark.parametrize("epoch", KEPT)
def test_parameters_of_an_epoch_are_its_snapshot(
    stub: ForwardServiceStub, recorded: Bundle, epoch: int
) -> None:
    response = stub.GetParameters(Asked(epoch=epoch, stages=["linear3", "linear1"]), timeout=30)
    assert response.HasField("epoch")
    assert response.epoch == epoch
    snapshots = read_snapshots(recorded)
    assert snapshots
    expected = snapshots.by_epoch[epoch]
    found = arrays_of(response)
    assert_same(found, {name: expected[name] for name in names_of(["linear1", "linear3"])})


def test_the_python_client_returns_the_same(server: RunningServer, recorded: Bundle) -> None:
    snapshots = read_snapshots(recorded)
    assert snapshots
    with ForwardClient(server.address, timeout_seconds=30) as client:
        history, served = client.training_history(), client.parameters()
        third = client.parameters(np.int64(3), ["linear2"])  # type: ignore[arg-type] # as NumPy gives it
    lines = [json.loads(line) for line in recorded.read(HISTORY_FILE).splitlines()]
    for epoch, line in zip(history.epochs, lines, strict=True):
        assert asdict(epoch) == {name: line[name] for name in asdict(epoch)}
    assert (history.snapshot_epochs, history.served_epoch) == (tuple(KEPT), EPOCHS)
    assert (history.model_name, history.model_version, history.runtime) == ("trained", 1, "onnx")
    assert [each.stage for each in served.stages] == LAYERS
    weights = read_weights(recorded)
    for each in served.stages:
        np.testing.assert_array_equal(each.weight, weights[f"{each.stage}.weight"])
        np.testing.assert_array_equal(each.bias, weights[f"{each.stage}.bias"])
        assert each.weight.dtype == each.bias.dtype == np.float32
    (second,) = third.stages
    assert (served.epoch, third.epoch, second.stage) == (None, 3, "linear2")
    np.testing.assert_array_equal(second.weight, snapshots.by_epoch[3]["linear2.weight"])
    assert second.weight.dtype == second.bias.dtype == np.float16


def test_meaningless_arguments_are_refused_before_the_call() -> None:
    with ForwardClient("127.0.0.1:1") as nobody:
        for wrong in (-1, 1.0, True, 2**31):
            with pytest.raises(ValueError, match="expected a number as epoch, from 0 to"):
                nobody.parameters(wrong)  # type: ignore[arg-type] # that is the question
        with pytest.raises(TypeError, match=r"expected a sequence of stages, got 'linear1'; write"):
            nobody.parameters(stages="linear1")


def test_an_epoch_that_was_not_kept_is_not_found(stub: ForwardServiceStub) -> None:
    for epoch in (2, 10):
        assert refused(stub, Asked(epoch=epoch)) == (
            "NOT_FOUND",
            f"no parameters of epoch {epoch} were kept; kept are those of the epochs 0, 1, 3, 9",
        )


def test_everything_wrong_with_a_request_is_named(stub: ForwardServiceStub) -> None:
    named = ["linear1", "relu1", "other", "linear1", ""]
    status, text = refused(stub, Asked(epoch=-1, stages=named))
    expected = "expected one of linear1, linear2, linear3"
    assert status == "INVALID_ARGUMENT"
    assert text.split("; ") == [
        "epoch: expected 0 or more, got -1",
        f"stages[1]: {expected}, got 'relu1', which has no parameters",
        f"stages[2]: {expected}, got 'other'",
        "stages[3]: 'linear1' is named twice",
        f"stages[4]: {expected}, got ''",
    ]


def test_very_many_stages_are_refused_in_short(stub: ForwardServiceStub) -> None:
    status, text = refused(stub, Asked(stages=["x"] * 300_000))
    assert status == "INVALID_ARGUMENT"
    assert "more violations" in text
    assert len(text) < 4000


def test_another_model_is_not_found(stub: ForwardServiceStub) -> None:
    selector = pb.ModelSelector(name="other")
    for request in (History(model=selector), Asked(model=selector)):
        status, text = refused(stub, request)
        assert status == "NOT_FOUND"
        assert "this server has 'trained' version 1" in text


def test_float16_images_are_refused(stub: ForwardServiceStub) -> None:
    images = pb.Tensor(dtype=pb.DATA_TYPE_FLOAT16, shape=SHAPE, data=bytes(84))
    with pytest.raises(grpc.RpcError) as failed:
        stub.Predict(pb.PredictRequest(images=images), timeout=30)
    assert failed.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert failed.value.details() == (
        "images.dtype: expected DATA_TYPE_FLOAT32 or DATA_TYPE_UINT8, got DATA_TYPE_FLOAT16"
    )


def test_a_reloaded_version_brings_its_own_record(tmp_path: Path, recorded: Bundle) -> None:
    first = republish(recorded, tmp_path, {})
    with (
        serving(first, "--reload-interval", "0.1") as running,
        grpc.insecure_channel(running.address) as channel,
    ):
        stub = ForwardServiceStub(channel)
        assert len(stub.GetTrainingHistory(History(), timeout=30).epochs) == EPOCHS
        staged = tmp_path / "trained" / ".staged"
        staged.mkdir()
        contents = {file.name: recorded.read(file.name) for file in recorded.manifest.files}
        second = recorded.manifest.model_copy(update={"version": 2})
        write_bundle(staged, second, {**contents, HISTORY_FILE: history_of(EPOCHS + 3)})
        staged.rename(staged.parent / "2")
        for _ in range(600):
            response = stub.GetTrainingHistory(History(), timeout=30)
            if response.model.version == 2:
                break
        assert len(response.epochs) == EPOCHS + 3


def test_the_record_is_served_when_the_folder_is_gone(tmp_path: Path, recorded: Bundle) -> None:
    bundle = republish(recorded, tmp_path, {})
    with serving(bundle) as running, grpc.insecure_channel(running.address) as channel:
        (bundle.path / SNAPSHOTS_FILE).unlink()
        (bundle.path / HISTORY_FILE).unlink()
        stub = ForwardServiceStub(channel)
        assert len(stub.GetParameters(Asked(epoch=3), timeout=30).stages) == 3
        assert len(stub.GetTrainingHistory(History(), timeout=30).epochs) == EPOCHS
