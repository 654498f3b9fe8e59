"""The one way from checked images to the runtime and back, for every method and protocol."""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import numpy as np

from server.context import CallContext
from server.engine.activations import TracedRun
from server.engine.admission import AdmissionControl
from server.engine.batcher import BatchingConfig, Done, DynamicBatcher
from server.engine.model import ServedModel
from server.engine.staging import PixelBuffer
from server.observability.metrics import ServerMetrics

Packed = TypeVar("Packed")

# A trace is packed where it ran, which takes longer than the run: more go to the thread.
MOST_INLINE_TRACED_IMAGES = 64


Pack = Callable[[TracedRun, slice], Packed]


@dataclass(frozen=True, slots=True)
class _TraceItem(Generic[Packed]):
    images: np.ndarray
    stages: Sequence[str]
    pack: Pack[Packed]


class ModelInstance:
    """A model with its two batchers: Predict and Trace run apart, each with a session of its own.

    The batchers share the admission control.
    """

    def __init__(
        self,
        model: ServedModel,
        admission: AdmissionControl,
        limits: BatchingConfig,
        metrics: ServerMetrics,
    ) -> None:
        self.model = model
        self._logits_stage = model.manifest.stages[-1].name
        self._names = [stage.name for stage in model.manifest.stages]
        shape = model.manifest.input_shape
        self._predict_pixels = PixelBuffer(limits.max_batch_images, shape)
        self._trace_pixels = PixelBuffer(limits.max_batch_images, shape)
        self._predict_metrics = metrics.batcher("predict")
        self._trace_metrics = metrics.batcher("trace")
        self._predict = DynamicBatcher(
            self._run_predict, admission, limits, self._predict_metrics.queue_seconds.observe
        )
        inline_images = min(limits.inline_images, MOST_INLINE_TRACED_IMAGES)
        traced = replace(limits, inline_images=inline_images)
        self._trace: DynamicBatcher[_TraceItem[Any], Any] = DynamicBatcher(
            self._run_trace, admission, traced, self._trace_metrics.queue_seconds.observe
        )

    def predict(self, images: np.ndarray, call: CallContext) -> asyncio.Future[Done[np.ndarray]]:
        """Return, later, the logits [N, classes] of images [N, H, W]: FLOAT32 in range, or UINT8.

        The call is in flight until its answer has left. To await it may raise
        DeadlineExceededError, or what the runtime raised.

        Raises:
            QueueFullError: the queue is full.
        """
        done = self._predict.submit(images, len(images), call.deadline)
        call.add_done_callback(self._predict.complete)
        return done

    def trace(
        self, images: np.ndarray, stages: Sequence[str], pack: Pack[Packed], call: CallContext
    ) -> asyncio.Future[Done[Packed]]:
        """Return, later, what `pack` makes of a run; it packs where the run ran.

        `pack` gets the run and the request's own rows in it; the run has the
        named stages and the logits. The rest is as for `predict`.
        """
        item = _TraceItem(images, stages, pack)
        done = self._trace.submit(item, len(images), call.deadline)
        call.add_done_callback(self._trace.complete)
        return done

    @property
    def is_idle(self) -> bool:
        """Tell whether every request's answer has left."""
        return self._predict.is_idle and self._trace.is_idle

    def close(self) -> None:
        """Let the running batches finish; nothing can be submitted any more."""
        self._predict.close()
        self._trace.close()

    def _run_predict(self, requests: Sequence[np.ndarray]) -> list[np.ndarray]:
        found = []
        for pixels in self._predict_pixels.runs(requests):
            started = time.perf_counter()
            found.append(self.model.runner.predict(pixels))
            self._predict_metrics.observe_run(len(pixels), time.perf_counter() - started)
        logits = found[0] if len(found) == 1 else np.concatenate(found)
        return [logits[rows] for rows in _rows(requests)]

    def _run_trace(self, items: Sequence[_TraceItem[Packed]]) -> list[Packed]:
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
