"""One case on one server: load it, meter it, and make sure that it did the work."""

import math
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from bench.load.counters import Counters, read_counters
from bench.load.h2load import Load, frame, load
from bench.load.processes import Served
from bench.load.requests import Request
from bench.scenarios.cases import ECHO, NATIVE_ECHO, Case
from export.runtimes import Runner

ECHO_PATHS = {
    ECHO: "/bench.Echo/Echo",
    NATIVE_ECHO: "/forward.v1.ForwardService/Predict",
}
SETTLE_SECONDS = 0.2  # for calls that the end of the load cut off
FORWARD_SECONDS = 0.3
LEAD_SECONDS = 0.3  # by which a load beside begins earlier and ends later


class FailedRequestsError(Exception):
    """A load was not answered as it should be; its figures would mean nothing."""


@dataclass(frozen=True)
class Figures:
    """What a round of a case showed, for each request or, of a stream, each message."""

    cpu: float  # microseconds, of all the server's processes; not a number beside another load
    rate: float  # a second
    p50: float  # milliseconds; of a whole stream
    p99: float
    mebibytes: float  # resident
    client: float  # part of the time that the one thread of h2load computed


def measure(name: str, served: Served, case: Case, seconds: float, answer_bytes: int) -> Figures:
    """Load a server for so long, after a moment to warm up.

    Raises:
        FailedRequestsError: not every request was answered with OK.
    """
    url, shape = served.url(ECHO_PATHS.get(name, case.request.path)), case.shape
    body = frame(case.request.message()) * shape.messages_per_request
    warm = 1 if shape.messages_per_request > 1 else max(100, 4 * shape.callers)
    load(url, body, shape, requests=warm)
    counted = _counted(served)
    with _loaded_beside(served, case, seconds):
        before = served.cpu_seconds()
        seen = load(url, body, shape, seconds=seconds)
        cpu = math.nan if case.beside else served.cpu_seconds() - before
    _check_answers(f"{name}: {case.name}", seen, case, answer_bytes)
    if counted is not None:
        time.sleep(SETTLE_SECONDS)
        done = read_counters(served.metrics_port or 0).since(counted)
        callers = shape.callers + (case.beside.shape.callers if case.beside else 0)
        check_counters(f"{name}: {case.name}", case, callers, seen, done)
    # A stream of which the end of the load cut off a part counts by what was answered of it.
    messages = seen.data_bytes / (answer_bytes + len(frame(b"")))
    if shape.messages_per_request == 1:
        messages = seen.requests
    return Figures(
        cpu=cpu / messages * 1e6,
        rate=messages / seen.seconds,
        p50=seen.p50,
        p99=seen.p99,
        mebibytes=served.resident_mebibytes(),
        client=seen.client_share,
    )


@contextmanager
def _loaded_beside(served: Served, case: Case, seconds: float) -> Iterator[None]:
    """Send what the case has beside it, from a moment before until a moment after."""
    if case.beside is None:
        yield
        return
    request, shape = case.beside.request, case.beside.shape
    url, body = served.url(request.path), frame(request.message())
    with ThreadPoolExecutor(1) as pool:
        beside = pool.submit(load, url, body, shape, seconds=seconds + 2 * LEAD_SECONDS)
        time.sleep(LEAD_SECONDS)
        yield
        if beside.result().failed:
            raise FailedRequestsError(f"{case.name}: requests beside it failed")


def _counted(served: Served) -> Counters | None:
    return None if served.metrics_port is None else read_counters(served.metrics_port)


def _check_answers(what: str, seen: Load, case: Case, answer_bytes: int) -> None:
    """h2load does not know gRPC's status, but an error has no message."""
    messages = seen.requests * case.shape.messages_per_request
    # Of the two durations of a trace, 18 bytes, one that is 0 is left out.
    missing = 18 if case.request.method in ("Trace", "Attribute") else 0
    minimum = messages * (len(frame(b"")) + answer_bytes - missing)
    if seen.failed or seen.data_bytes < minimum:
        raise FailedRequestsError(
            f"{what}: {seen.failed} of {seen.requests} requests failed; "
            f"the answers have {seen.data_bytes} bytes, expected {minimum} or more"
        )


def check_counters(what: str, case: Case, callers: int, seen: Load, done: Counters) -> None:
    """Compare what the client saw with what the server counted.

    Raises:
        FailedRequestsError: they differ by more than the requests that the end cut off.
    """
    answered, cut = done.calls("OK", case.request.method), done.calls("CANCELLED")
    images = seen.requests * case.shape.messages_per_request * case.request.images
    if (
        done.failures()
        or cut > callers
        or not seen.requests <= answered <= seen.requests + callers
        or done.images < images
    ):
        raise FailedRequestsError(
            f"{what}: the client saw {seen.requests} answers ({images} images); the server counted "
            f"{answered} OK, {cut} cancelled, {done.images} images and {done.failures()}"
        )


def forward_microseconds(runner: Runner, request: Request) -> float:
    """Return the median time of one forward pass in process, on one thread."""
    pixels = request.array().astype(np.float32)
    times = []
    ends = time.perf_counter() + FORWARD_SECONDS
    while (started := time.perf_counter()) < ends:
        runner.predict(pixels)
        times.append(time.perf_counter() - started)
    return float(np.median(times)) * 1e6
