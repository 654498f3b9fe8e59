"""The calls of forward.v1.ForwardService, pure of any transport: unpack, compute, pack."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass

import numpy as np

from forward.v1 import forward_pb2 as pb
from server.call import Call
from server.codec import ImageCodec, encode_into
from server.corridor import Corridor, TracedRun
from server.errors import (
    InvalidArgumentError,
    NotFoundError,
    ServiceError,
    Violation,
    rich_status,
    shown,
)
from server.stream import OrderedAnswers
from server.trace import TracePlan, plan_trace, put_stage, response_bytes


@dataclass(frozen=True)
class Limits:
    """What one request may ask for."""

    max_batch_images: int
    max_response_bytes: int


class ForwardService:
    """Answers calls with one served model.

    Every method raises ServiceError and nothing else that a caller may cause.
    """

    def __init__(self, corridor: Corridor, limits: Limits) -> None:
        self._corridor = corridor
        self._model = model = corridor.model
        self._limits = limits
        self._codec = ImageCodec(model.manifest, limits.max_batch_images)
        self._identity = pb.ModelIdentity(
            name=model.manifest.name, version=model.manifest.version, runtime=model.runner.runtime
        )

    async def predict(self, request: pb.PredictRequest, call: Call) -> pb.PredictResponse:
        """Return the logits of the images."""
        images = self._checked_images(request)
        done = await self._corridor.predict(images, call)
        response = pb.PredictResponse(model=self._identity)
        encode_into(response.logits, done.result)
        return response

    async def predict_stream(
        self, requests: AsyncIterator[pb.PredictStreamRequest | ServiceError], call: Call
    ) -> AsyncGenerator[pb.PredictStreamResponse, None]:
        """Yield the logits of each request, or its error, in the order of the requests."""
        stream = OrderedAnswers(
            self._checked_images, self._corridor.predict, call, self._limits.max_batch_images
        )
        async with aclosing(stream.run(requests)) as answers:
            async for answer in answers:
                response = pb.PredictStreamResponse(model=self._identity)
                if isinstance(answer, ServiceError):
                    response.error.ParseFromString(rich_status(answer).SerializeToString())
                else:
                    encode_into(response.logits, answer.result)
                yield response

    def _checked_images(self, request: pb.PredictRequest | pb.PredictStreamRequest) -> np.ndarray:
        if request.HasField("model"):
            self._check_model(request.model)
        images = self._codec.view(request.images)
        if images is None:
            raise InvalidArgumentError(self._image_faults(request))
        return images

    async def trace(self, request: pb.TraceRequest, call: Call) -> pb.TraceResponse:
        """Return the logits of the images, and the stages that the request names."""
        if request.HasField("model"):
            self._check_model(request.model)
        images = self._codec.view(request.images)
        violations = self._image_faults(request) if images is None else []
        plan = plan_trace(request, self._model.manifest.stages, violations)
        if images is not None:
            self._check_response_size(plan, len(images), violations)
        if images is None or violations:
            raise InvalidArgumentError(violations)

        def pack(run: TracedRun, rows: slice) -> pb.TraceResponse:
            return self._packed(plan, run, rows)

        done = await self._corridor.trace(images, list(plan.details), pack, call)
        done.result.queue_seconds = done.queue_seconds
        return done.result

    async def get_model(self, request: pb.GetModelRequest, call: Call) -> pb.GetModelResponse:  # noqa: ARG002 (the signature of a call)
        """Describe the served model."""
        if request.HasField("model"):
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

    def _packed(self, plan: TracePlan, run: TracedRun, rows: slice) -> pb.TraceResponse:
        response = pb.TraceResponse(model=self._identity, run_seconds=run.seconds)
        stages = self._model.manifest.stages
        encode_into(response.logits, run.values(stages[-1].name)[rows])
        for stage in stages:
            if stage.name in plan.details:
                traced = response.stages.add()
                traced.flops_per_image = self._model.flops_per_image[stage.name]
                put_stage(stage, plan, run, rows, traced)
        return response

    def _image_faults(
        self, request: pb.PredictRequest | pb.PredictStreamRequest | pb.TraceRequest
    ) -> list[Violation]:
        if not request.HasField("images"):
            return [Violation("images", "required, but not set")]
        return self._codec.faults(request.images)

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
