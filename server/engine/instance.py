"""A model instance: every method and protocol runs its images here."""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np

from export.attribution.attribute import Question
from export.parity.certificates import Proof
from server.engine.activations import TracedRun
from server.engine.admission import AdmissionControl
from server.engine.attribution import AttributedRun, attributing, is_long
from server.engine.batched import BatchedResult
from server.engine.batcher import BatchingConfig, DynamicBatcher
from server.engine.interventions import Intervention, changes_of, joined
from server.engine.model import ServedModel
from server.engine.staging import PixelBuffer, pixels_of
from server.observability.drift import DriftMonitor
from server.observability.engine_metrics import BatcherName
from server.observability.metrics import ServerMetrics
from server.observability.records import CallRecord

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
class TraceSpec:
    """What a trace computes: the named stages and the logits, with the interventions."""

    stages: Sequence[str]
    interventions: Sequence[Intervention] = ()
    unchanged_logits: bool = False  # beside those with the interventions
    certify: bool = False  # its pack proves bounds, which takes the time of several passes


@dataclass(frozen=True, slots=True)
class _TraceItem(Generic[Result]):
    images: np.ndarray
    spec: TraceSpec
    pack: Pack[Result]


class ModelInstance:
    """A model with its batchers: Predict and Trace run apart, each with a session of its own.

    The two share the admission control. Attributions that take long, and traces with certificates,
    have a batcher and an admission control of their own: nobody else waits for them.
    """

    def __init__(
        self,
        model: ServedModel,
        admission: AdmissionControl,
        config: BatchingConfig,
        metrics: ServerMetrics,
        drift: DriftMonitor | None = None,
    ) -> None:
        self.model = model
        self.drift = drift
        self._logits_stage = model.manifest.stages[-1].name
        self._names = [stage.name for stage in model.manifest.stages]
        self._sizes = {stage.name: stage.size for stage in model.manifest.stages}
        shape = model.manifest.input_shape
        self._predict_pixels = PixelBuffer(config.max_batch_images, shape)
        trace_pixels = PixelBuffer(config.max_batch_images, shape)
        long_pixels = PixelBuffer(config.max_batch_images, shape)
        version = model.manifest.version
        metrics.engine.add_version(version)
        self._predict_metrics = metrics.engine.batcher("predict", version)
        self._trace_metrics = metrics.engine.batcher("trace", version)
        self._predict = DynamicBatcher(
            self._run_predict, admission, config, self._predict_metrics.queue_seconds.observe
        )
        inline_images = min(config.inline_images, MAX_INLINE_TRACED_IMAGES)
        self._trace: DynamicBatcher[_TraceItem[Any], Any] = DynamicBatcher(
            partial(self._run_trace, trace_pixels),
            admission,
            replace(config, inline_images=inline_images),
            self._trace_metrics.queue_seconds.observe,
            "trace",
        )
        self._long: DynamicBatcher[_TraceItem[Any], Any] = DynamicBatcher(
            partial(self._run_trace, long_pixels),
            AdmissionControl(config.max_batch_images),
            replace(config, inline_images=0, merge=False),
            self._trace_metrics.queue_seconds.observe,
            "trace",
        )

    def predict(
        self, images: np.ndarray, deadline: float | None, caller: CallRecord | None = None
    ) -> Submission[np.ndarray]:
        """Submit images [N, H, W], FLOAT32 in range or UINT8, for their logits [N, classes].

        The deadline is a time of time.monotonic; None: never. `caller` is the record of the
        call.

        Raises:
            QueueFullError: the queue is full.
        """
        result = self._predict.submit(images, len(images), deadline, caller)
        return Submission(result, self._predict.complete)

    def trace(
        self,
        images: np.ndarray,
        spec: TraceSpec,
        pack: Pack[Result],
        deadline: float | None,
        caller: CallRecord | None = None,
    ) -> Submission[Result]:
        """Submit images for what `pack` makes of their run; it packs in the run's own thread.

        `pack` gets the run and the request's own rows in it. The rest is as for `predict`.
        """
        batcher = self._long if spec.certify else self._trace
        item = _TraceItem(images, spec, pack)
        result = batcher.submit(item, len(images), deadline, caller)
        return Submission(result, batcher.complete)

    def attribute(
        self,
        images: np.ndarray,
        question: Question,
        pack: Callable[[AttributedRun], Result],
        deadline: float | None,
        caller: CallRecord | None = None,
    ) -> Submission[Result]:
        """Submit images for what `pack` makes of their attributions. The rest is as for `trace`."""
        network = self.model.network
        stages, attributed = attributing(network, question, pack)
        batcher = self._long if is_long(network, question) else self._trace
        item = _TraceItem(images, TraceSpec(stages), attributed)
        result = batcher.submit(item, len(images), deadline, caller)
        return Submission(result, batcher.complete)

    def prove(self, images: np.ndarray, spec: TraceSpec) -> Proof:
        """Return what is proven of a request's trace, in any runtime of this one's precision."""
        changes = changes_of(spec.interventions, self._sizes)
        return self.model.prover.prove(pixels_of(images), self.model.runner.precision, changes)

    @property
    def is_idle(self) -> bool:
        """Tell whether every request's response has been sent."""
        return self._predict.is_idle and self._trace.is_idle and self._long.is_idle

    def oldest_seconds(self, batcher: BatcherName) -> float:
        """Return how long a batcher's oldest request has waited; any thread may ask."""
        if batcher == "predict":
            return self._predict.oldest_seconds()
        return max(self._trace.oldest_seconds(), self._long.oldest_seconds())

    def close(self) -> None:
        """Let the running batches finish; nothing can be submitted any more."""
        self._predict.close()
        self._trace.close()
        self._long.close()

    def _run_predict(self, requests: Sequence[np.ndarray]) -> list[np.ndarray]:
        runs = []
        for pixels, count in self._predict_pixels.runs(requests):
            started = time.perf_counter()
            runs.append(self.model.runner.predict(pixels))
            self._predict_metrics.observe_run(len(pixels), count, time.perf_counter() - started)
        logits = runs[0] if len(runs) == 1 else np.concatenate(runs)
        if self.drift:
            self.drift.sample(requests, logits)
        return [logits[rows] for rows in _rows(requests)]

    def _run_trace(self, buffer: PixelBuffer, items: Sequence[_TraceItem[Result]]) -> list[Result]:
        plain = [item for item in items if not item.spec.interventions]
        if len(plain) == len(items):
            return self._trace_alike(buffer, items)
        # Two runs: requests without interventions do not pay for those with.
        changed = [item for item in items if item.spec.interventions]
        plain_results = iter(self._trace_alike(buffer, plain) if plain else ())
        changed_results = iter(self._trace_alike(buffer, changed))
        return [
            next(changed_results if item.spec.interventions else plain_results) for item in items
        ]

    def _trace_alike(
        self, buffer: PixelBuffer, items: Sequence[_TraceItem[Result]]
    ) -> list[Result]:
        """Run requests that all have interventions, or none of which has."""
        requests = [item.images for item in items]
        pixels = buffer.gather(requests)
        wanted = {self._logits_stage}.union(*(item.spec.stages for item in items))
        names = [name for name in self._names if name in wanted]
        runner, rows = self.model.runner, list(_rows(requests))
        started = time.perf_counter()
        has_interventions = bool(items[0].spec.interventions)
        if has_interventions:
            changes = [changes_of(item.spec.interventions, self._sizes) for item in items]
            together = joined(changes, [each.start for each in rows], self._sizes)
            values = runner.intervene(pixels, names, together)
        else:
            values = runner.trace(pixels, names)
        unchanged = values[self._logits_stage]
        if has_interventions and any(item.spec.unchanged_logits for item in items):
            unchanged = runner.predict(pixels)
        if self.drift and not has_interventions:
            self.drift.sample(requests, unchanged)
        run = TracedRun(values, unchanged, time.perf_counter() - started)
        self._trace_metrics.observe_run(len(pixels), len(items), run.seconds)
        return [item.pack(run, each) for item, each in zip(items, rows, strict=True)]


def _rows(requests: Sequence[np.ndarray]) -> Iterator[slice]:
    """Yield each request's rows in the run that they share."""
    start = 0
    for images in requests:
        yield slice(start, start + len(images))
        start += len(images)
