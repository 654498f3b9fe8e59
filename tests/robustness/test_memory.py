"""What a request brought is let go of when its call has ended, however it ended.

The servers' garbage collector is off: what only it would free stays, and is found.
"""

import asyncio
import signal
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace
from typing import Any

import grpc
import numpy as np
import psutil
import pytest
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from export.bundle import Bundle
from forward.v1 import forward_pb2 as pb
from forward_client import ForwardClient, ForwardError
from forward_client.messages import tensor_of
from server.api.forward_v1.stream import PredictStream
from server.api.forward_v1.zero_copy import ImageRequest
from server.engine.admission import AdmissionControl
from server.engine.batcher import BatchingConfig, DynamicBatcher
from server.engine.model import load_verified
from server.errors import InternalError, as_service_error
from server.observability.metrics import ServerMetrics
from server.repository.current import CurrentModel, activate
from tests.support.abandoned import REQUEST_BYTES, RPCS, WAYS, Rpc, connect
from tests.support.collectors import UncollectedServer, start_uncollected_server, uncollected
from tests.support.servers import (
    BareContext,
    HeldRunner,
    RunningServer,
    start_held_server,
    threaded_instance,
    wait_until,
)

CALLS = 16  # of each RPC
# All that may stay after the calls of all RPCs: less than the requests of one RPC alone. grpc.aio's
# own cycles take less than a kilobyte a call.
MAX_BYTES = CALLS * REQUEST_BYTES // 4
MAX_RESIDENT_BYTES = len(RPCS) * CALLS * REQUEST_BYTES // 3  # allocators keep some of it
IDLE_STREAMS = 20
METADATA_BYTES, METADATA_CALLS = 15_000, 3_500  # 50 MiB in all
HEALTH_LIST = "/grpc.health.v1.Health/List"  # grpcio answers it with UNIMPLEMENTED


@pytest.fixture(scope="module")
def uncollected_server(transport: str) -> Iterator[UncollectedServer]:
    with start_uncollected_server("--transport", transport) as server:
        for way in WAYS.values():  # what the first calls make is there to stay
            for rpc in RPCS:
                way(server.running, rpc, 1)
        server.cycles()
        server.traced_bytes()
        yield server


def test_every_reflected_rpc_is_tested_here(
    uncollected_server: UncollectedServer,
) -> None:
    with connect(uncollected_server.running) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        served = {
            f"/{service}/{method.name}"
            for service in database.get_services()
            for file in [database.FindFileContainingSymbol(service)]
            for described in file.service
            if f"{file.package}.{described.name}" == service
            for method in described.method
        }
    assert {rpc.path for rpc in RPCS} == served - {HEALTH_LIST}


@pytest.mark.parametrize("way", WAYS)
def test_memory_stays_flat_without_a_collector(
    uncollected_server: UncollectedServer, way: str
) -> None:
    server, process = uncollected_server, psutil.Process(uncollected_server.running.process.pid)
    traced, resident = server.traced_bytes(), process.memory_info().rss
    for rpc in RPCS:
        WAYS[way](server.running, rpc, CALLS)
    wait_until(lambda: server.traced_bytes() - traced < MAX_BYTES)  # the last calls end, too
    assert process.memory_info().rss - resident < MAX_RESIDENT_BYTES
    assert server.cycles() == {}


def test_idle_and_drained_streams_hold_no_request() -> None:
    """A stream of reflection, which only its client ends, holds up the end of the server."""
    with start_uncollected_server() as server, connect(server.running) as channel:
        done = threading.Event()
        held = [begin_idle(channel, rpc, done) for rpc in RPCS if "reflection.v1." in rpc.path]
        assert held
        before = server.traced_bytes()
        stream = next(rpc for rpc in RPCS if rpc.path.endswith("PredictStream"))
        streams = [begin_idle(channel, stream, done) for _ in range(IDLE_STREAMS)]
        most = IDLE_STREAMS * REQUEST_BYTES // 4
        wait_until(lambda: server.traced_bytes() - before < most)
        server.running.process.send_signal(signal.SIGTERM)
        for each in streams:
            with pytest.raises(grpc.RpcError, match="shutting down"):
                next(each)
        wait_until(lambda: server.traced_bytes() - before < most)
        assert server.cycles() == {}
        done.set()


def test_metadata_wait_only_briefly_for_the_collector(served: RunningServer) -> None:
    """A cycle of grpc.aio in each call holds them."""
    process, seen = psutil.Process(served.process.pid), list[int]()
    metadata = (("x-large", "v" * METADATA_BYTES),)
    with connect(served) as channel:
        call: Any = channel.unary_unary(next(rpc.path for rpc in RPCS if "ServerLive" in rpc.path))
        for number in range(METADATA_CALLS):
            call(b"", metadata=metadata)
            if number % 100 == 99:
                seen.append(process.memory_info().rss)
    assert max(seen) - seen[0] < METADATA_CALLS * METADATA_BYTES // 2


def begin_idle(channel: grpc.Channel, rpc: Rpc, done: threading.Event) -> Iterator[bytes]:
    """Begin a stream, read the answer to its one request, and leave it open."""

    def requests() -> Iterator[bytes]:
        yield rpc.good
        done.wait(60)

    call: Any = channel.stream_stream(rpc.path)  # the stubs know no requests that are bytes
    answers: Iterator[bytes] = call(requests())
    next(answers)
    return answers


def test_an_unforeseen_failure_keeps_nothing_of_its_request(bundle: Bundle) -> None:
    images = np.zeros((1, 28, 28), np.uint8)
    with start_held_server(bundle) as server, ForwardClient(server.address) as client:
        with uncollected() as garbage:
            for _ in range(3):
                with pytest.raises(ForwardError, match="internal error"):
                    client.trace(images)
        kinds = (MemoryError, InternalError, pb.TraceRequest, np.ndarray)
        assert not [each for each in garbage if isinstance(each, kinds)]


def test_a_failed_run_keeps_no_request_of_its_batch() -> None:
    class RunFailedError(Exception):
        pass

    started, let_go = threading.Event(), threading.Event()

    def fail(_items: Sequence[bytes]) -> list[bytes]:
        started.set()
        assert let_go.wait(30)
        raise RunFailedError

    async def run() -> None:
        scheduler = DynamicBatcher[bytes, bytes](
            fail, AdmissionControl(8), BatchingConfig(8, 0.01, 0)
        )
        answers = [scheduler.submit(b"", 1) for _ in range(3)]
        await asyncio.to_thread(started.wait, 30)
        answers[0].cancel()  # nobody takes its error
        let_go.set()
        for answer in answers[1:]:  # they run together, and then each of them alone
            try:
                await answer
            except RunFailedError as error:
                as_service_error(error, "test", "the-id")
        scheduler.close()

    with uncollected() as garbage:
        asyncio.run(run())
    assert not [each for each in garbage if isinstance(each, RunFailedError)]


def test_a_stream_ended_by_its_transport_keeps_nothing(bundle: Bundle) -> None:
    class ConnectionCutError(Exception):
        pass

    class FailingRunner(HeldRunner):
        def predict(self, images: np.ndarray) -> np.ndarray:  # noqa: ARG002 (the interface)
            raise InternalError

    async def requests() -> AsyncIterator[ImageRequest[pb.PredictStreamRequest]]:
        message = pb.PredictStreamRequest(images=tensor_of(np.zeros((1, 28, 28), np.uint8)))
        yield ImageRequest(message, message.images.data)
        raise ConnectionCutError

    async def run(current: CurrentModel) -> None:
        context = BareContext()
        responses = PredictStream(current, context, 8).responses(requests())
        assert (await anext(responses)).error.code == grpc.StatusCode.INTERNAL.value[0]
        with pytest.raises(ConnectionCutError):
            await anext(responses)
        context.end()

    opened = load_verified(bundle, "onnx", "cpu", threads=1)
    runner = FailingRunner(opened.runner)
    model = replace(opened, runner=runner)
    instance = threaded_instance(model, AdmissionControl(8), ServerMetrics(), 8)
    with uncollected() as garbage:
        asyncio.run(run(CurrentModel(activate(instance, 8))))
    instance.close()
    kinds = (ConnectionCutError, InternalError, PredictStream, ImageRequest)
    assert not [each for each in garbage if isinstance(each, kinds)]
