"""GetTrainingHistory and GetParameters: their limits, and what a bundle may lack."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from export.bundle import Bundle
from export.bundle.manifest import HISTORY_FILE, SNAPSHOTS_FILE
from export.bundle.record import EpochRecord
from forward.v1 import forward_pb2 as pb
from server.api.forward_v1.service import ForwardService
from server.api.forward_v1.training import history_bytes
from server.api.sizes import STAGE_OVERHEAD_BYTES
from server.engine.admission import AdmissionControl
from server.engine.model import load_verified
from server.errors import InvalidArgumentError, NotFoundError, ServiceError
from server.limits import RequestLimits
from server.observability.metrics import ServerMetrics
from server.repository.current import CurrentModel, activate
from tests.support.bundles import history_of, publish_random_bundle, republish, with_record
from tests.support.servers import BareContext, threaded_instance

SHAPE, LABELS = (6, 7), ("a", "b", "c")
History, Asked = pb.GetTrainingHistoryRequest, pb.GetParametersRequest
Answer = Callable[[pb.GetTrainingHistoryRequest | pb.GetParametersRequest], Any]
PARAMETERS = {"linear1": 43 * 32, "linear2": 33 * 3}


@pytest.fixture
def plain(tmp_path: Path) -> Bundle:
    return publish_random_bundle(tmp_path / "plain", "trained", SHAPE, LABELS, (32,))


@pytest.fixture
def recorded(plain: Bundle, tmp_path: Path) -> Bundle:
    return with_record(plain, tmp_path / "recorded")


def answers(bundle: Bundle, max_response_bytes: int = 1 << 22) -> Answer:
    """Return what answers a request with that bundle."""
    model = load_verified(bundle, "onnx", "cpu", threads=1)
    instance = threaded_instance(model, AdmissionControl(8), ServerMetrics(), 8)
    limits = RequestLimits(max_batch_images=8, max_response_bytes=max_response_bytes)
    service = ForwardService(CurrentModel(activate(instance, 8)), limits)

    def answer(request: pb.GetTrainingHistoryRequest | pb.GetParametersRequest) -> object:
        if isinstance(request, History):
            return asyncio.run(service.get_training_history(request, BareContext()))
        return asyncio.run(service.get_parameters(request, BareContext()))

    return answer


def refused(
    answer: Answer,
    request: pb.GetTrainingHistoryRequest | pb.GetParametersRequest,
    kind: type[ServiceError],
) -> str:
    with pytest.raises(kind) as failed:
        answer(request)
    return str(failed.value)


def test_parameters_over_the_limit_are_refused_with_both_sizes(recorded: Bundle) -> None:
    of_half = 3 * STAGE_OVERHEAD_BYTES + 2 * sum(PARAMETERS.values())
    needed = 3 * STAGE_OVERHEAD_BYTES + 4 * sum(PARAMETERS.values())
    answer = answers(recorded, of_half)
    half = answer(Asked(epoch=0))
    assert [stage.stage for stage in half.stages] == list(PARAMETERS)
    assert half.ByteSize() <= of_half
    assert [stage.stage for stage in answer(Asked(stages=["linear2"])).stages] == ["linear2"]
    advice = "name fewer stages, or raise --max-response-bytes of the server"
    assert refused(answer, Asked(), InvalidArgumentError) == (
        f"stages: the response needs up to {needed} bytes, allowed are {of_half}; {advice}"
    )
    assert refused(answers(recorded, of_half - 1), Asked(epoch=2), InvalidArgumentError) == (
        f"stages: the response needs up to {of_half} bytes, allowed are {of_half - 1}; {advice}"
    )


def test_a_long_history_is_refused_over_the_limit(recorded: Bundle, tmp_path: Path) -> None:
    bundle = republish(recorded, tmp_path / "long", {HISTORY_FILE: history_of(50)})
    text = refused(answers(bundle, 1024), History(), InvalidArgumentError)
    assert text.startswith("request: the response needs up to ")
    assert text.endswith(" bytes, allowed are 1024; raise --max-response-bytes of the server")


def test_a_bundle_without_a_record_says_what_it_lacks(plain: Bundle) -> None:
    answer = answers(plain)
    assert len(answer(Asked()).stages) == 2
    for request, file in ((History(), HISTORY_FILE), (Asked(epoch=0), SNAPSHOTS_FILE)):
        assert refused(answer, request, NotFoundError) == (
            f"'trained' version 1 was published without {file}; train and publish a version that "
            "has it"
        )


def test_a_history_without_snapshots_is_served(plain: Bundle, tmp_path: Path) -> None:
    bundle = republish(plain, tmp_path / "history", {HISTORY_FILE: history_of(3)})
    answer = answers(bundle)
    response = answer(History())
    assert (len(response.epochs), list(response.snapshot_epochs)) == (3, [])
    assert response.served_epoch == 0
    assert SNAPSHOTS_FILE in refused(answer, Asked(epoch=3), NotFoundError)


def test_a_wrong_record_is_logged_and_the_model_served(recorded: Bundle, tmp_path: Path) -> None:
    bundle = republish(recorded, tmp_path / "wrong", {SNAPSHOTS_FILE: b"no snapshots at all"})
    with capture_logs() as logs:
        answer = answers(bundle)
    (warning,) = (line for line in logs if line["log_level"] == "warning")
    assert f"{SNAPSHOTS_FILE}: no snapshots of a training" in warning["reason"]
    assert len(answer(Asked()).stages) == 2
    for request in (History(), Asked(epoch=0)):
        assert refused(answer, request, NotFoundError) == (
            "the record of the training of 'trained' version 1 is damaged; the server's log has "
            "the reason"
        )


def test_very_many_kept_epochs_are_named_in_short(plain: Bundle, tmp_path: Path) -> None:
    bundle = with_record(plain, tmp_path / "many", epochs=200, kept=range(0, 201, 1))
    text = refused(answers(bundle), Asked(epoch=999), NotFoundError)
    assert text.endswith(" 98, 99 and 101 more up to 200")


@settings(max_examples=30)
@given(
    st.lists(st.text(max_size=40), max_size=4),
    st.floats(),
    st.lists(st.integers(0, 2**31 - 1), max_size=9),
)
def test_the_size_of_a_history_is_never_underestimated(
    observations: list[str], figure: float, kept: list[int]
) -> None:
    epochs = [
        EpochRecord(
            epoch=2**31 - 1,
            train_loss=figure,
            train_accuracy=figure,
            held_out_loss=figure,
            held_out_accuracy=figure,
            learning_rate=figure,
            seconds=figure,
            observation=text,
        )
        for text in observations
    ] * 100  # else what a response has beside its epochs would hide what one takes
    message = pb.GetTrainingHistoryResponse(
        model=pb.ModelIdentity(name="trained", version=2**63 - 1, runtime="torchscript"),
        epochs=[pb.Epoch(**each.model_dump()) for each in epochs],
        snapshot_epochs=kept,
        served_epoch=2**31 - 1,
    )
    assert message.ByteSize() <= history_bytes(epochs, len(kept))
