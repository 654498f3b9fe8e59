"""A model instance: every method and protocol runs its images here."""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np

from server.engine.activations import TracedRun
from server.engine.admission import AdmissionControl
from server.engine.batcher import BatchedResult, BatchingConfig, DynamicBatcher
from server.engine.model import ServedModel
from server.engine.staging import PixelBuffer
from server.observability.metrics import ServerMetrics

Result = TypeVar("Result")

# A trace is packed where it ran, which takes longer than the run: more images go to the thread.
MAX_INLINE_TRACED_IMAGES = 64


Pack = Callable[[TracedRun, slice], Result]


class Submission(NamedTuple, Generic[Result]):
    """A request that was admitted.

    Whoever submitted it calls `complete` once, when its response has been sent or nobody waits
    for one any more. To await `result` may raise DeadlineExceededError, or what the runtime raised.
    """

    result: asyncio.Future[BatchedResult[Result]]
    complete: Callable[[], None]


@dataclass(frozen=True, slots=True)
class _TraceItem(Generic[Result]):
    images: np.ndarray
    stages: Sequence[str]
    pack: Pack[Result]


class ModelInstance:
    """A model with its two batchers: Predict and Trace run apart, each with a session of its own.

    The batchers share the admission control.
    """

    def __init__(
        self,
        model: ServedModel,
        admission: AdmissionControl,
        config: BatchingConfig,
        metrics: ServerMetrics,
    ) -> None:
        self.model = model
        self._logits_stage = model.manifest.stages[-1].name
        self._names = [stage.name for stage in model.manifest.stages]
        shape = model.manifest.input_shape
        self._predict_pixels = PixelBuffer(config.max_batch_images, shape)
        self._trace_pixels = PixelBuffer(config.max_batch_images, shape)
        self._predict_metrics = metrics.batcher("predict")
        self._trace_metrics = metrics.batcher("trace")
        self._predict = DynamicBatcher(
            self._run_predict, admission, config, self._predict_metrics.queue_seconds.observe
        )
        inline_images = min(config.inline_images, MAX_INLINE_TRACED_IMAGES)
        self._trace: DynamicBatcher[_TraceItem[Any], Any] = DynamicBatcher(
            self._run_trace,
            admission,
            replace(config, inline_images=inline_images),
            self._trace_metrics.queue_seconds.observe,
        )

    def predict(self, images: np.ndarray, deadline: float | None) -> Submission[np.ndarray]:
        """Submit images [N, H, W], FLOAT32 in range or UINT8, for their logits [N, classes].

        The deadline is a time of time.monotonic; None: never.

        Raises:
            QueueFullError: the queue is full.
        """
        result = self._predict.submit(images, len(images), deadline)
        return Submission(result, self._predict.complete)

    def trace(
        self,
        images: np.ndarray,
        stages: Sequence[str],
        pack: Pack[Result],
        deadline: float | None,
    ) -> Submission[Result]:
        """Submit images for what `pack` makes of their run; it packs in the run's own thread.

        `pack` gets the run and the request's own rows in it; the run has the
        named stages and the logits. The rest is as for `predict`.
        """
        item = _TraceItem(images, stages, pack)
        result = self._trace.submit(item, len(images), deadline)
        return Submission(result, self._trace.complete)

    @property
    def is_idle(self) -> bool:
        """Tell whether every request's response has been sent."""
        return self._predict.is_idle and self._trace.is_idle

    def close(self) -> None:
        """Let the running batches finish; nothing can be submitted any more."""
        self._predict.close()
        self._trace.close()

    def _run_predict(self, requests: Sequence[np.ndarray]) -> list[np.ndarray]:
        runs = []
        for pixels in self._predict_pixels.runs(requests):
            started = time.perf_counter()
            runs.append(self.model.runner.predict(pixels))
            self._predict_metrics.observe_run(len(pixels), time.perf_counter() - started)
        logits = runs[0] if len(runs) == 1 else np.concatenate(runs)
        return [logits[rows] for rows in _rows(requests)]

    def _run_trace(self, items: Sequence[_TraceItem[Result]]) -> list[Result]:
        requests = [item.images for item in items]
        pixels = self._trace_pixels.gather(requests)
        wanted = {self._logits_stage}.union(*(item.stages for item in items))
        names = [name for name in self._names if name in wanted]
        started = time.perf_counter()
        values = self.model.runner.trace(pixels, names)
        run = TracedRun(values, time.perf_counter() - started)
        self._trace_metrics.observe_run(len(pixels), run.seconds)
        return [item.pack(run, rows) for item, rows in zip(items, _rows(requests), strict=True)]


def _rows(requests: Sequence[np.ndarray]) -> Iterator[slice]:
    """Yield each request's rows in the run that they share."""
    start = 0
    for images in requests:
        yield slice(start, start + len(images))
        start += len(images)
