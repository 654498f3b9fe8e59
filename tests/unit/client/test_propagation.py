"""The client's calls carry the span that they are made in, where the program traces itself."""

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import numpy as np
import pytest
from opentelemetry import baggage, context, trace
from opentelemetry.sdk.trace import TracerProvider

from forward.v1 import forward_pb2 as pb
from forward_client import ForwardClient
from tests.support.bundles import REPOSITORY

TOKEN = "of-a-client"  # noqa: S105 (of the test alone)
IMAGES = np.zeros((1, 28, 28), np.uint8)
NO_TRACING = """
import sys
from forward_client import ForwardClient
with ForwardClient("localhost:1", timeout_seconds=0.1) as client:
    try:
        client.model()
    except Exception as error:
        print(type(error).__name__, [name for name in sys.modules if "opentelemetry" in name])
"""


class Listener(grpc.GenericRpcHandler):
    """Answers every call and keeps its metadata."""

    def __init__(self) -> None:
        self.calls: list[dict[str, str | bytes]] = []

    def service(self, details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[Any, Any]":
        metadata: Any = details.invocation_metadata
        self.calls.append({key: value for key, value in metadata if not key.startswith("user-")})
        if details.method.endswith("Stream"):
            return grpc.stream_stream_rpc_method_handler(lambda *_: iter(()))
        return grpc.unary_unary_rpc_method_handler(
            lambda *_: pb.GetModelResponse().SerializeToString()
        )


@contextmanager
def listen() -> Iterator[tuple[Listener, str]]:
    listener, server = Listener(), grpc.server(ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((listener,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield listener, f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


@contextmanager
def span() -> Iterator[str]:
    """Make a recorded span the current one; give the header that names it."""
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("test")
    with tracer.start_as_current_span("caller") as current:
        own = current.get_span_context()
        yield f"00-{own.trace_id:032x}-{own.span_id:016x}-{own.trace_flags:02x}"


def test_every_call_carries_the_current_span() -> None:
    with listen() as (listener, address), ForwardClient(address, token=TOKEN) as client:
        with span() as first:
            client.model()
        with span() as second:
            list(client.predict_stream([IMAGES]))
        client.model()
    token = {"authorization": f"Bearer {TOKEN}"}
    expected = [{"traceparent": first}, {"traceparent": second}, {}]
    assert listener.calls == [token | trace for trace in expected]


def test_what_else_propagates_goes_along() -> None:
    attached = context.attach(baggage.set_baggage("customer", "ä 1"))
    try:
        with listen() as (listener, address), ForwardClient(address) as client:
            client.model()
    finally:
        context.detach(attached)
    assert listener.calls == [{"baggage": "customer=%C3%A4+1"}]


def test_the_callers_own_metadata_is_asked_for_each_call() -> None:
    ids = iter(("first", "second"))

    def metadata() -> list[tuple[str, str]]:
        return [("x-request-id", next(ids))]

    with listen() as (listener, address), ForwardClient(address, metadata=metadata) as client:
        client.model()
        client.model()
    assert listener.calls == [{"x-request-id": "first"}, {"x-request-id": "second"}]


def test_a_span_that_is_not_recorded_says_so() -> None:
    unrecorded = trace.SpanContext(1, 2, is_remote=False, trace_flags=trace.TraceFlags(0))
    with (
        listen() as (listener, address),
        ForwardClient(address) as client,
        trace.use_span(trace.NonRecordingSpan(unrecorded)),
    ):
        client.model()
    assert listener.calls == [{"traceparent": f"00-{1:032x}-{2:016x}-00"}]


@pytest.mark.parametrize("blocked", ["", "sys.modules['opentelemetry'] = None"], ids=["", "absent"])
def test_a_program_without_tracing_imports_none_of_it(blocked: str) -> None:
    command = [sys.executable, "-c", f"import sys\n{blocked}\n{NO_TRACING}"]
    done = subprocess.run(command, check=True, cwd=REPOSITORY, capture_output=True, text=True)
    found = ["opentelemetry"] if blocked else []
    assert done.stdout.split(" ", 1) == ["ForwardError", f"{found}\n"]
