"""The calls of forward.v1.ForwardService, pure of any transport: unpack, compute, pack."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from forward.v1 import forward_pb2 as pb
from server.codec import ImageCodec, encode
from server.errors import InvalidArgumentError, NotFoundError, Violation, shown
from server.metrics import ServerMetrics
from server.models import ServedModel
from server.scheduler import Scheduler
from server.trace import TracePlan, plan_trace, response_bytes, traced_stage


@dataclass(frozen=True)
class Call:
    """What a transport knows of a call beside its request."""

    peer: str
    metadata: Sequence[tuple[str, str | bytes]]
    deadline: float | None  # time of time.monotonic; cancellation cancels the coroutine


@dataclass(frozen=True)
class Limits:
    """What one request may ask for."""

    max_batch_images: int
    max_response_bytes: int


@dataclass(frozen=True)
class Computed:
    """What a run leaves, packed where it ran: a large trace takes longer to pack than to run."""

    logits: pb.Tensor
    run_seconds: float  # of the runtime alone
    stages: Sequence[pb.TracedStage] = ()


class ForwardService:
    """Answers calls with one served model.

    Every method raises ServiceError and nothing else that a caller may cause.
    """

    def __init__(
        self, model: ServedModel, scheduler: Scheduler, metrics: ServerMetrics, limits: Limits
    ) -> None:
        self._model = model
        self._scheduler = scheduler
        self._metrics = metrics
        self._limits = limits
        self._codec = ImageCodec(model.manifest, limits.max_batch_images)
        self._identity = pb.ModelIdentity(
            name=model.manifest.name, version=model.manifest.version, runtime=model.runner.runtime
        )

    async def predict(self, request: pb.PredictRequest, call: Call) -> pb.PredictResponse:
        """Return the logits of the images."""
        self._check_model(request.model)
        violations: list[Violation] = []
        images = self._images(request, violations)
        if violations:
            raise InvalidArgumentError(violations)
        run = await self._scheduler.run(len(images), lambda: self._predict(images), call.deadline)
        self._metrics.observe_run("Predict", len(images), run.queue_seconds, run.result.run_seconds)
        return pb.PredictResponse(logits=run.result.logits, model=self._identity)

    async def trace(self, request: pb.TraceRequest, call: Call) -> pb.TraceResponse:
        """Return the logits of the images, and the stages that the request names."""
        self._check_model(request.model)
        stages = self._model.manifest.stages
        violations: list[Violation] = []
        images = self._images(request, violations)
        plan = plan_trace(request, stages, violations)
        self._check_response_size(plan, len(images), violations)
        if violations:
            raise InvalidArgumentError(violations)
        run = await self._scheduler.run(
            len(images), lambda: self._trace(images, plan), call.deadline
        )
        self._metrics.observe_run("Trace", len(images), run.queue_seconds, run.result.run_seconds)
        return pb.TraceResponse(
            logits=run.result.logits,
            model=self._identity,
            stages=run.result.stages,
            queue_seconds=run.queue_seconds,
            run_seconds=run.result.run_seconds,
        )

    async def get_model(self, request: pb.GetModelRequest, call: Call) -> pb.GetModelResponse:  # noqa: ARG002 (the signature of a call)
        """Describe the served model."""
        self._check_model(request.model)
        manifest, runner = self._model.manifest, self._model.runner
        return pb.GetModelResponse(
            model=self._identity,
            device=runner.device,
            provider=runner.provider,
            input=pb.InputSpecification(
                shape=manifest.input_shape,
                dtypes=[pb.DATA_TYPE_FLOAT32, pb.DATA_TYPE_UINT8],
                min_value=manifest.input_min,
                max_value=manifest.input_max,
            ),
            stages=[
                pb.StageSpecification(
                    name=stage.name,
                    operation=stage.operation,
                    description=stage.description,
                    shape=stage.shape,
                    flops_per_image=self._model.flops_per_image[stage.name],
                    parameter_count=self._model.parameter_counts[stage.name],
                )
                for stage in manifest.stages
            ],
            labels=manifest.labels,
            parameter_count=sum(self._model.parameter_counts.values()),
            limits=pb.Limits(
                max_batch_images=self._limits.max_batch_images,
                max_response_bytes=self._limits.max_response_bytes,
            ),
            metrics=[
                pb.Metric(name=name, value=value)
                for name, value in sorted(manifest.metrics.items())
            ],
        )

    def _predict(self, images: np.ndarray) -> Computed:
        started = time.perf_counter()
        logits = self._model.runner.predict(images)
        return Computed(encode(logits), time.perf_counter() - started)

    def _trace(self, images: np.ndarray, plan: TracePlan) -> Computed:
        stages = self._model.manifest.stages
        logits = stages[-1].name
        started = time.perf_counter()
        traced = self._model.runner.trace(images, list({**plan.details, logits: None}))
        run_seconds = time.perf_counter() - started
        packed = [
            traced_stage(
                stage,
                self._model.flops_per_image[stage.name],
                plan.details[stage.name],
                plan.top_k,
                traced[stage.name],
            )
            for stage in stages
            if stage.name in plan.details
        ]
        return Computed(encode(traced[logits]), run_seconds, packed)

    def _images(
        self, request: pb.PredictRequest | pb.TraceRequest, violations: list[Violation]
    ) -> np.ndarray:
        if not request.HasField("images"):
            violations.append(Violation("images", "required, but not set"))
            return np.empty((0, *self._model.manifest.input_shape), np.float32)
        return self._codec.decode(request.images, violations)

    def _check_model(self, selector: pb.ModelSelector) -> None:
        manifest = self._model.manifest
        if selector.name not in ("", manifest.name) or selector.version not in (
            0,
            manifest.version,
        ):
            name = shown(selector.name or manifest.name)
            asked = f"{name} version {selector.version or 'any'}"
            raise NotFoundError(
                f"model {asked} is not served; "
                f"this server has {manifest.name!r} version {manifest.version}"
            )

    def _check_response_size(
        self, plan: TracePlan, images: int, violations: list[Violation]
    ) -> None:
        needed = response_bytes(plan, self._model.manifest.stages, images)
        if needed > self._limits.max_response_bytes:
            violations.append(
                Violation(
                    "stages",
                    f"the answer needs up to {needed} bytes, allowed are "
                    f"{self._limits.max_response_bytes}; send fewer images, name fewer stages, "
                    "or ask for TOP_K or STATISTICS",
                )
            )
