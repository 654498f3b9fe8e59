"""A real receiver of OpenTelemetry's protocol, over gRPC and HTTP, that keeps the spans."""

import gzip
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1 import trace_pb2 as otlp

from server.observability.traceparent import TraceParent
from tests.support.servers import wait_until

Protocol = Literal["grpc", "http/protobuf"]
PATH = "/v1/traces"
PHASES = ("queue", "compute", "encode")  # of a call, in their order
Attribute = str | bool | int | float


@dataclass(frozen=True)
class ReceivedSpan:
    """A span as it came; ids in hexadecimal digits, times in nanoseconds since 1970."""

    name: str
    kind: str  # "SERVER", "INTERNAL", ...
    trace_id: str
    span_id: str
    parent_id: str  # "" without one
    started: int
    ended: int
    attributes: dict[str, Attribute]
    links: frozenset[tuple[str, str]]  # trace and span
    is_error: bool
    resource: dict[str, Attribute]

    @property
    def seconds(self) -> float:
        return (self.ended - self.started) / 1e9

    @property
    def link(self) -> tuple[str, str]:
        return self.trace_id, self.span_id


@dataclass
class Receiver:
    """What has come so far, and where it listens."""

    endpoint: str
    protocol: Protocol
    spans: list[ReceivedSpan] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        """The variables that let a server send its spans here, soon."""
        return {
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.endpoint,
            "OTEL_EXPORTER_OTLP_PROTOCOL": self.protocol,
            "OTEL_BSP_SCHEDULE_DELAY": "50",  # ms
        }

    def take(self, request: ExportTraceServiceRequest) -> None:
        for resource_spans in request.resource_spans:
            resource = _attributes(resource_spans.resource.attributes)
            for scope_spans in resource_spans.scope_spans:
                self.spans += [_received(span, resource) for span in scope_spans.spans]

    def named(self, name: str, **attributes: Attribute) -> list[ReceivedSpan]:
        """Return the spans of a name with these attributes, whose dots are written as `__`."""
        wanted = {key.replace("__", "."): value for key, value in attributes.items()}
        return [
            span
            for span in list(self.spans)
            if span.name == name and wanted.items() <= span.attributes.items()
        ]

    def wait_for(self, name: str, count: int = 1, **attributes: Attribute) -> list[ReceivedSpan]:
        """Return the spans that `named` returns when there are so many."""
        wait_until(lambda: len(self.named(name, **attributes)) >= count)
        found = self.named(name, **attributes)
        assert len(found) == count
        return found

    def of_call(self, caller: TraceParent, method: str) -> ReceivedSpan:
        """Return the one span of a server for a call that a span has made, when it is there."""

        def found() -> list[ReceivedSpan]:
            return [span for span in list(self.spans) if span.parent_id == caller.span_id]

        wait_until(lambda: bool(found()))
        (span,) = found()
        assert (span.name, span.kind, span.trace_id) == (method, "SERVER", caller.trace_id)
        return span

    def children(self, parent: ReceivedSpan) -> dict[str, ReceivedSpan]:
        """Return the children of a span that have come, by name."""
        found = [span for span in list(self.spans) if span.parent_id == parent.span_id]
        assert all(span.trace_id == parent.trace_id for span in found)
        assert len({span.name for span in found}) == len(found), found
        return {span.name: span for span in found}

    def phases(self, parent: ReceivedSpan) -> dict[str, ReceivedSpan]:
        """Return the children of a call that was computed: one after the other, and inside it."""
        wait_until(lambda: len(self.children(parent)) >= len(PHASES))
        children = self.children(parent)
        assert children.keys() == set(PHASES)
        inside = [at for name in PHASES for at in (children[name].started, children[name].ended)]
        times = [parent.started, *inside, parent.ended]
        assert times == sorted(times)
        assert {span.kind for span in children.values()} == {"INTERNAL"}
        return children

    def batches(self, *calls: ReceivedSpan) -> list[ReceivedSpan]:
        """Return the spans of the runs that any of these calls was in, when all are there."""
        links = {span.link for span in calls}

        def found() -> list[ReceivedSpan]:
            return [span for span in self.named("batch") if span.links & links]

        wait_until(lambda: links <= {link for span in found() for link in span.links})
        return found()


@contextmanager
def receive_spans(protocol: Protocol) -> Iterator[Receiver]:
    """Listen on a free port of this machine."""
    receiver = Receiver("", protocol)
    opened = _grpc_receiver if protocol == "grpc" else _http_receiver
    with opened(receiver.take) as port:
        receiver.endpoint = f"http://127.0.0.1:{port}"
        yield receiver


Take = Callable[[ExportTraceServiceRequest], None]


@contextmanager
def _grpc_receiver(take: Take) -> Iterator[int]:
    class Servicer(TraceServiceServicer):
        def Export(  # noqa: N802 (the method's name)
            self,
            request: ExportTraceServiceRequest,
            context: grpc.ServicerContext,  # noqa: ARG002 (every method has one)
        ) -> ExportTraceServiceResponse:
            take(request)
            return ExportTraceServiceResponse()

    server = grpc.server(ThreadPoolExecutor(2))
    add_TraceServiceServicer_to_server(Servicer(), server)  # type: ignore[no-untyped-call] # its stubs lack it
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield port
    finally:
        server.stop(None).wait()


@contextmanager
def _http_receiver(take: Take) -> Iterator[int]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers["content-encoding"] == "gzip":
                body = gzip.decompress(body)
            is_right = (self.path, self.headers["content-type"]) == (PATH, "application/x-protobuf")
            if is_right:
                take(ExportTraceServiceRequest.FromString(body))
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(200 if is_right else 404)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 (its name there)
            """Print nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def _received(span: otlp.Span, resource: dict[str, Attribute]) -> ReceivedSpan:
    return ReceivedSpan(
        name=span.name,
        kind=otlp.Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        started=span.start_time_unix_nano,
        ended=span.end_time_unix_nano,
        attributes=_attributes(span.attributes),
        links=frozenset((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
        is_error=span.status.code == otlp.Status.STATUS_CODE_ERROR,
        resource=resource,
    )


def _attributes(pairs: Iterable[KeyValue]) -> dict[str, Attribute]:
    return {pair.key: _value(pair) for pair in pairs}


def _value(pair: KeyValue) -> Attribute:
    kind = pair.value.WhichOneof("value")
    assert kind in {"string_value", "bool_value", "int_value", "double_value"}, pair
    value: Attribute = getattr(pair.value, kind)
    return value
