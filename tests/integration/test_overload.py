"""Load, overload and failure of a server."""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from export.bundle import Bundle
from forward.v1 import forward_pb2 as pb
from forward_client import ForwardClient, ForwardError
from forward_client.messages import tensor_of
from server.api.forward_v1.activations import put_stage
from server.api.forward_v1.service import ForwardService
from server.api.forward_v1.zero_copy import ImageRequest
from server.engine.admission import AdmissionControl
from server.engine.model import load_verified
from server.limits import RequestLimits
from server.observability.metrics import ServerMetrics
from server.repository.current import CurrentModel, activate
from tests.support.bundles import random_images
from tests.support.servers import (
    BareContext,
    RunningServer,
    start_held_server,
    threaded_instance,
)

ONE = random_images(1, (28, 28))


def test_a_trace_is_packed_off_the_event_loop(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: set[str] = set()

    def watched(*arguments: Any) -> None:  # noqa: ANN401 (passed on)
        threads.add(threading.current_thread().name)
        put_stage(*arguments)

    monkeypatch.setattr("server.api.forward_v1.service.put_stage", watched)
    model = load_verified(bundle, "onnx", "cpu", threads=1)
    instance = threaded_instance(model, AdmissionControl(8), ServerMetrics(), 8)
    service = ForwardService(CurrentModel(activate(instance, 8)), RequestLimits(8, 1 << 20))
    message = pb.TraceRequest(images=tensor_of(ONE))
    request = ImageRequest(message, message.images.data)
    response = asyncio.run(service.trace(request, BareContext()))
    instance.close()
    assert len(response.stages) == 6
    assert len(threads) == 1
    assert threads.pop().startswith("forward-run")


def test_a_full_queue_gives_a_time_to_retry(bundle: Bundle) -> None:
    with (
        start_held_server(bundle, max_queue_images=8) as server,
        ForwardClient(server.address) as caller,
        ThreadPoolExecutor(1) as pool,
    ):
        running = pool.submit(caller.predict, random_images(6, (28, 28)))
        assert server.runner.started.acquire(timeout=10)
        with pytest.raises(ForwardError, match="holds 6 of at most 8 images") as refused:
            caller.predict(random_images(3, (28, 28)))
        assert refused.value.code == "RESOURCE_EXHAUSTED"
        assert refused.value.retry_seconds is not None
        assert refused.value.retry_seconds > 0
        server.runner.let_go.set()
        assert len(running.result(10).logits) == 6
        assert len(caller.predict(random_images(8, (28, 28))).logits) == 8


def test_a_call_past_its_deadline_is_not_computed(bundle: Bundle) -> None:
    with (
        start_held_server(bundle) as server,
        ForwardClient(server.address) as patient,
        ForwardClient(server.address, timeout_seconds=0.2) as hasty,
        ThreadPoolExecutor(1) as pool,
    ):
        running = pool.submit(patient.predict, ONE)
        assert server.runner.started.acquire(timeout=10)
        with pytest.raises(ForwardError, match=r"no response from .* within 0\.2 s") as late:
            hasty.predict(ONE)
        assert late.value.code == "DEADLINE_EXCEEDED"
        time.sleep(0.2)  # the caller's clock is ahead of the server's by the way of the call
        server.runner.let_go.set()
        running.result(10)
        patient.predict(ONE)
        assert server.runner.runs == 2, "the late call was computed"
        handled = server.metrics.registry.get_sample_value(
            "grpc_server_handled_total",
            {
                "grpc_service": "forward.v1.ForwardService",
                "grpc_method": "Predict",
                "grpc_type": "unary",
                "grpc_code": "DEADLINE_EXCEEDED",
            },
        )
        assert handled == 1


def test_an_unexpected_error_gives_only_a_request_id(
    bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    # The log has the values of all variables here, which takes a while to write.
    with (
        start_held_server(bundle) as server,
        ForwardClient(server.address, timeout_seconds=60) as caller,
    ):
        with pytest.raises(ForwardError) as failed:
            caller.trace(ONE)
        assert failed.value.code == "INTERNAL"
        assert "secret" not in str(failed.value)
        request_id = failed.value.request_id
        assert str(failed.value).endswith(f"under request {request_id}")
        server.runner.let_go.set()
        assert caller.predict(ONE).logits.shape == (1, 10), "the server must go on"
    logged = capsys.readouterr().out
    assert request_id in logged
    assert "the secret cause" in logged


def test_answers_do_not_cross_between_callers(served: RunningServer, client: ForwardClient) -> None:
    images = random_images(300, (28, 28), seed=5)
    expected = client.predict(images).logits

    def call(index: int) -> bytes:
        with ForwardClient(served.address, timeout_seconds=30) as caller:
            return b"".join(
                caller.predict(images[i]).logits.tobytes() for i in range(index, 300, 12)
            )

    with ThreadPoolExecutor(12) as pool:
        found = list(pool.map(call, range(12)))
    for index, logits in enumerate(found):
        assert logits == expected[index::12].tobytes()
