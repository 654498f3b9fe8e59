"""The pipeline of Ray Data: read, score, write. Nothing else here imports ray."""

import logging
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Any, NamedTuple

import ray
from ray.data import ActorPoolStrategy, DataContext, TaskPoolStrategy

from deploy.ray.score.config import ScoreSettings
from deploy.ray.score.errors import ScoreError
from deploy.ray.score.locations import Location
from deploy.ray.score.output import Written, write
from deploy.ray.score.readers.dispatch import read
from deploy.ray.score.readers.pieces import Piece, Reading
from deploy.ray.score.scorer import Scorer, Scoring
from server.engine.cpus import available_cpus

Batch = dict[str, Any]  # columns of Python's objects: Ray's own blocks may split and join chunks
# What a worker, and a task of reading or writing, take of a CPU: so there is always room for a
# task; with workers that fill every CPU none could begin (ray-project/ray, issue 44687). Ray joins
# steps of the same share into one; apart, several workers score what one task reads.
WORKER_SHARE, TASK_SHARE = 0.5, 0.25
BLOCK_BYTES = 16 << 20  # in a block of Ray's: about a chunk of FLOAT32
LOOPBACK = "127.0.0.2"  # Ray takes 127.0.0.1 for the address that other machines know
KEPT_BYTES = 4000  # of what Ray said, for an error
MAX_READ_TASKS = 2000  # a larger input gives each task several pieces


@contextmanager
def cluster(settings: ScoreSettings) -> Iterator[int]:
    """Join a Ray cluster, or run one here for the while; yield how many workers it should have.

    Raises:
        ScoreError: it can't be joined or started, or a task failed for a reason that is not in the
            data.
    """
    here = {
        "address": "local",  # by default it would join one that somebody runs on this machine
        "num_cpus": settings.cpus or available_cpus(),
        "object_store_memory": settings.object_store_mb << 20,
        "include_dashboard": False,
        "_node_ip_address": LOOPBACK,
    }
    options: dict[str, Any] = {"address": settings.address} if settings.address else here
    with _stderr_kept() as said:
        try:
            ray.init(logging_level=logging.ERROR, log_to_driver=False, **options)
        except Exception as error:  # Ray raises Exception itself, say on a timeout
            verb = "joined" if settings.address else "started"
            raise ScoreError(f"Ray can't be {verb}: {error}\n{said()}".strip()) from error
        try:
            yield _workers(settings)
        except ray.exceptions.RayError as error:
            raise ScoreError(f"{_cause(error)}\n{said()}".strip()) from error
        finally:
            ray.shutdown()


def _workers(settings: ScoreSettings) -> int:
    """Return how many workers there are to be."""
    cpus: float = ray.cluster_resources().get("CPU", 0.0)  # type: ignore[no-untyped-call] # not annotated
    most = int((cpus - 2 * TASK_SHARE) / WORKER_SHARE)
    if settings.workers > most:
        raise ScoreError(
            f"--workers: {settings.workers} leave no CPU to read and write with; Ray has "
            f"{cpus:g} CPUs, expected at most {most}"
        )
    return settings.workers or max(1, int(cpus))


def _cause(error: BaseException) -> BaseException:
    """Return the error of a task itself."""
    return error.cause if isinstance(error, ray.exceptions.RayTaskError) else error


@contextmanager
def _stderr_kept() -> Iterator[Callable[[], str]]:
    """Keep from the terminal what Ray's core and its libraries write there; yield what returns it.

    The core has no setting for it that says nothing itself.
    """
    sys.stderr.flush()
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as kept:
        os.dup2(kept.fileno(), 2)
        try:
            yield lambda: _tail(kept)
        finally:
            sys.stderr.flush()
            os.dup2(terminal, 2)
            os.close(terminal)


def _tail(kept: IO[bytes]) -> str:
    kept.seek(max(0, kept.seek(0, os.SEEK_END) - KEPT_BYTES))
    return kept.read().decode(errors="replace")


class Work(NamedTuple):
    """What there is to do."""

    pieces: Sequence[Piece]
    reading: Reading
    scoring: Scoring
    output: Location
    workers: int


def run(work: Work) -> Iterator[Written]:
    """Read, score and write; yield what each part has as it is written, in any order."""
    _quieten()
    items = [{"item": piece} for piece in work.pieces]
    dataset = (
        ray.data.from_items(items, override_num_blocks=min(len(items), MAX_READ_TASKS))
        .map_batches(
            _ReadTask(work.reading).read,
            compute=TaskPoolStrategy(size=work.workers),
            batch_size=1,
            batch_format="numpy",
            num_cpus=TASK_SHARE,
        )
        .map_batches(
            _Worker,
            fn_constructor_args=(work.scoring,),
            compute=ActorPoolStrategy(size=work.workers),
            batch_size=1,
            batch_format="numpy",
            num_cpus=WORKER_SHARE,
        )
        .map_batches(
            _WriteTask(work.output).write,
            compute=TaskPoolStrategy(size=max(1, work.workers // 2)),
            batch_size=1,
            batch_format="numpy",
            num_cpus=TASK_SHARE,
        )
    )
    for batch in dataset.iter_batches(batch_size=None, batch_format="numpy"):
        yield from batch["item"]


def _quieten() -> None:
    """Leave the terminal to the command: Ray's own log is in the folder of its session."""
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.enable_fallback_to_arrow_object_ext_type = True
    context.target_max_block_size = BLOCK_BYTES
    for handler in logging.getLogger("ray.data").handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.setLevel(logging.CRITICAL)


class _ReadTask:
    def __init__(self, reading: Reading) -> None:
        self._reading = reading

    def read(self, batch: Batch) -> Iterator[Batch]:
        """Yield the chunks of each piece, one at a time."""
        for piece in batch["item"]:
            for chunk in read(piece, self._reading):
                yield {"item": [chunk]}


class _Worker:
    """An actor of the pool: it holds the model."""

    def __init__(self, scoring: Scoring) -> None:
        self._scorer = Scorer(scoring)

    def __call__(self, batch: Batch) -> Batch:
        return {"item": [self._scorer.score(chunk) for chunk in batch["item"]]}


class _WriteTask:
    def __init__(self, output: Location) -> None:
        self._output = output

    def write(self, batch: Batch) -> Batch:
        """Write the parts, and return what each has."""
        return {"item": [write(self._output, part) for part in batch["item"]]}
