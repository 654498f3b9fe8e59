"""Who calls a server: a program that traces itself, or a client with metadata of its own."""

from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry.sdk.trace import TracerProvider

from forward_client import ForwardClient
from server.observability.traceparent import TraceParent
from tests.support.servers import HeldServer, RunningServer


@contextmanager
def caller() -> Iterator[TraceParent]:
    """Make a recorded span the current one, as a program that traces itself does."""
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("test")
    with tracer.start_as_current_span("caller") as current:
        own = current.get_span_context()
        yield TraceParent(f"{own.trace_id:032x}", f"{own.span_id:016x}", is_sampled=True)


def client_of(server: RunningServer | HeldServer, **metadata: str) -> ForwardClient:
    """Return a client whose calls have these metadata; `_` in their names is `-`."""
    pairs = [(name.replace("_", "-"), value) for name, value in metadata.items()]
    return ForwardClient(server.address, timeout_seconds=60, metadata=lambda: pairs)
