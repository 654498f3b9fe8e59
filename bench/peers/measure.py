"""One round of one server: started, checked, loaded case by case, ended."""

import contextlib
import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import grpc

from bench.load.h2load import frame
from bench.load.processes import Served, running
from bench.peers.targets import Target, check, pixels

START_SECONDS = 90.0
WARM_UP_SECONDS = 0.5
ATTEMPTS = 3  # h2load crashes now and then as its time ends


@dataclass(frozen=True)
class Case:
    """So many images in each request of so many callers, who each wait for their answer."""

    images: int
    callers: int

    def __str__(self) -> str:
        """Return its title."""
        images = "one image" if self.images == 1 else f"{self.images} images"
        return f"{images} a request, {self.callers} caller{'s' * (self.callers > 1)}"


CASES = (Case(1, 1), Case(1, 8), Case(1, 64), Case(64, 8))


@dataclass(frozen=True)
class Sample:
    """What a round of a case gave."""

    cpu_microseconds: float  # of all processes of the server, for a request
    requests_per_second: float
    p50_milliseconds: float
    p99_milliseconds: float


@dataclass(frozen=True)
class Figures:
    """Medians of the rounds, and the range of CPU."""

    median: Sample
    min_cpu: float
    max_cpu: float


def round_of(target: Target, cases: Sequence[Case], seconds: float) -> list[Sample]:
    """Start a server, see that it answers right, and measure each case.

    Raises:
        RuntimeError: it does not start, or answers wrong or with errors.
    """
    with running(
        *target.command, python=target.python, environment={**os.environ, "DO_NOT_TRACK": "1"}
    ) as served:
        _wait(target, served)
        check(target, served)
        return [_patient_sample(target, served, case, seconds) for case in cases]


def _wait(target: Target, served: Served) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            target.ask(served, pixels(target, 1))
        except (OSError, RuntimeError, grpc.RpcError) as error:
            if served.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{target.name} did not get ready: {error}") from error
            time.sleep(0.2)
        else:
            return


def _sample(target: Target, served: Served, case: Case, seconds: float) -> Sample:
    images = pixels(target, case.images)
    answer = target.answer(served, images)
    answer_bytes = len(frame(answer) if target.grpc else answer)
    target.load(served, images, case.callers, WARM_UP_SECONDS)
    before = served.cpu_seconds()
    seen = target.load(served, images, case.callers, seconds)
    used = served.cpu_seconds() - before
    if seen.failed or seen.data_bytes < seen.requests * answer_bytes:
        raise RuntimeError(
            f"{case}: {seen.failed} of {seen.requests} requests failed, "
            f"{seen.data_bytes} bytes of answers came, not {seen.requests * answer_bytes}"
        )
    return Sample(used / seen.requests * 1e6, seen.requests / seen.seconds, seen.p50, seen.p99)


def _patient_sample(target: Target, served: Served, case: Case, seconds: float) -> Sample:
    for _ in range(ATTEMPTS - 1):
        with contextlib.suppress(RuntimeError):
            return _sample(target, served, case, seconds)
    return _sample(target, served, case, seconds)


def figures(samples: Sequence[Sample]) -> Figures:
    """Return the medians of a case's rounds."""
    cpu = [each.cpu_microseconds for each in samples]
    median = Sample(
        statistics.median(cpu),
        statistics.median(each.requests_per_second for each in samples),
        statistics.median(each.p50_milliseconds for each in samples),
        statistics.median(each.p99_milliseconds for each in samples),
    )
    return Figures(median, min(cpu), max(cpu))
