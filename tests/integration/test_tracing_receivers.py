"""Tracing without a receiver that works, or without OpenTelemetry: serving does not care."""

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from forward_client import ForwardClient
from tests.support.bundles import random_images
from tests.support.otlp import Protocol, receive_spans
from tests.support.servers import RunningServer, metric, start_server, wait_until

IMAGES = random_images(3, (28, 28), seed=18)
TRACE = "forward.v1.ForwardService/Trace"
# Of a slow machine; the SDK would wait for 30, and for as long as its exporter tries.
CLOSE_SECONDS = 15
CALLS = 50
PortOf = Callable[[], AbstractContextManager[int]]
SOON, LATE = {"OTEL_BSP_SCHEDULE_DELAY": "50"}, {"OTEL_BSP_SCHEDULE_DELAY": "60000"}  # ms
# Python imports it before anything of the server; it says at the end what was imported.
SITECUSTOMIZE = """
import atexit, sys
atexit.register(lambda: print("imported", *sys.modules, file=sys.__stderr__, flush=True))
"""


def variables(protocol: Protocol, port: int) -> dict[str, str]:
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
        "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
    }


@contextmanager
def closed_port() -> Iterator[int]:
    """Give a port that refuses connections, and that nobody else gets."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


@contextmanager
def silent_port() -> Iterator[int]:
    """Give a port that takes connections and never says anything."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


def ask(server: RunningServer, calls: int = CALLS) -> None:
    with ForwardClient(server.address, timeout_seconds=60) as client:
        for _ in range(calls):
            client.trace(IMAGES)


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
@pytest.mark.parametrize("port_of", [closed_port, silent_port], ids=["down", "silent"])
def test_a_receiver_that_fails_hurts_nobody(
    port_of: PortOf, protocol: Protocol, transport: str
) -> None:
    with (
        port_of() as port,
        start_server("--transport", transport, **variables(protocol, port), **SOON) as server,
    ):
        ask(server)
        time.sleep(0.2)  # the thread that sends is at it
        ask(server)
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < CLOSE_SECONDS
        assert server.log()[-1]["event"] == "stopped"


@pytest.mark.one_transport
def test_the_last_spans_are_sent_at_the_end(transport: str) -> None:
    with (
        receive_spans("grpc") as receiver,
        start_server("--transport", transport, **{**receiver.environment, **LATE}) as server,
    ):
        ask(server)
        assert not receiver.spans
        assert server.stop() == 0
    assert len(receiver.named(TRACE)) == CALLS


@pytest.mark.one_transport
def test_the_variables_name_the_service(transport: str) -> None:
    named = {"OTEL_SERVICE_NAME": "digits", "OTEL_RESOURCE_ATTRIBUTES": "deployment.name=test"}
    with (
        receive_spans("http/protobuf") as receiver,
        start_server("--transport", transport, **receiver.environment, **named) as server,
    ):
        ask(server, 1)
        assert server.stop() == 0
    (call,) = receiver.named(TRACE)
    found = {key: call.resource[key] for key in ("service.name", "deployment.name")}
    assert found == {"service.name": "digits", "deployment.name": "test"}


@pytest.mark.one_transport
def test_every_span_that_is_lost_is_counted() -> None:
    sizes = {"OTEL_BSP_MAX_QUEUE_SIZE": "4", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "4"}

    def lost(reason: str) -> float:
        return metric(server, "forward_spans_dropped_total", reason=reason)

    with (
        silent_port() as port,
        start_server(
            *("--transport", "python"),
            **variables("http/protobuf", port),
            **{**LATE, **sizes, "OTEL_EXPORTER_OTLP_TIMEOUT": "1"},  # s
        ) as server,
        ForwardClient(server.address, timeout_seconds=60) as client,
    ):
        assert (lost("queue_full"), lost("export_failed")) == (0, 0)
        for _ in range(20):
            client.model()  # one span
        # Four are given to the receiver, in vain, and four more may wait at the same time.
        assert lost("queue_full") >= 20 - 4 - 4
        wait_until(lambda: lost("queue_full") + lost("export_failed") >= 20 - 4)
        assert lost("export_failed") >= 4


@pytest.mark.one_transport
def test_no_span_is_lost_while_there_is_a_receiver() -> None:
    with receive_spans("grpc") as receiver:
        arguments = ("--transport", "python")
        with start_server(*arguments, **receiver.environment) as server:
            with ForwardClient(server.address, timeout_seconds=60) as client:
                for _ in range(20):
                    client.model()
            receiver.wait_for("forward.v1.ForwardService/GetModel", 20)
            for reason in ("queue_full", "export_failed"):
                assert metric(server, "forward_spans_dropped_total", reason=reason) == 0
