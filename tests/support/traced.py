"""Calls that are traced, and what the tests of every method have in common."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

from forward_client import ForwardClient
from server.observability.traceparent import TraceParent
from tests.support.bundles import random_images
from tests.support.callers import client_of
from tests.support.otlp import ReceivedSpan, Receiver, receive_spans
from tests.support.servers import RunningServer, start_server

IMAGES = random_images(3, (28, 28), seed=18)
CALLER = TraceParent("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", is_sampled=True)
CallMethod = Callable[[ForwardClient], object]


@contextmanager
def sampling(transport: str, share: str) -> Iterator[tuple[RunningServer, Receiver]]:
    """Start a server that traces a share of the calls that no caller decides of."""
    sampler = {
        "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
        "OTEL_TRACES_SAMPLER_ARG": share,
    }
    with (
        receive_spans("grpc") as receiver,
        start_server("--transport", transport, **receiver.environment, **sampler) as server,
    ):
        yield server, receiver


def check_that_the_caller_decides(
    server: RunningServer, receiver: Receiver, method: str, call: CallMethod
) -> None:
    """Fail unless a call is traced if its caller is."""
    parents = {"not-recorded": CALLER._replace(is_sampled=False), "recorded": CALLER}
    for name, parent in parents.items():
        with client_of(server, traceparent=str(parent), x_request_id=name) as client:
            call(client)
    receiver.wait_for(method, forward__request_id="recorded")
    traced = {each.attributes.get("forward.request_id") for each in receiver.spans}
    assert "not-recorded" not in traced


def check_shared_runs(
    server: RunningServer, receiver: Receiver, method: str, call: CallMethod
) -> tuple[list[ReceivedSpan], list[ReceivedSpan]]:
    """Fail unless the spans of runs link to all calls in them; return both, calls first."""
    count, name = 200, "all-of-them"
    with client_of(server, x_request_id=name) as client, ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda each: each(), [partial(call, client)] * count))
    calls = receiver.wait_for(method, count, forward__request_id=name)
    batches = receiver.batches(*calls)
    assert sum(len(each.links) for each in batches) == count  # each call is in one run
    assert max(len(each.links) for each in batches) > 1
    for each in batches:
        assert each.attributes["forward.batch.requests"] == len(each.links)
        assert each.attributes["forward.batch.images"] == len(each.links) * len(IMAGES)
    return calls, batches
