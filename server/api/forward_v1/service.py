"""The calls of forward.v1.ForwardService, pure of any transport: unpack, compute, pack."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass

import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp

from forward.v1 import forward_pb2 as pb
from server.api.forward_v1.activations import TracePlan, plan_trace, put_stage, response_bytes
from server.api.forward_v1.codec import decode_images, encode_into, identity_message
from server.api.forward_v1.stream import OrderedAnswers
from server.api.sizes import check_response_size
from server.context import CallContext
from server.engine.activations import TracedRun
from server.engine.batcher import Done
from server.errors import (
    InvalidArgumentError,
    ServiceError,
    Violation,
    model_not_found,
    rich_status,
)
from server.limits import RequestLimits
from server.repository.current import ActiveModel, CurrentModel

TRACE_ADVICE = "send fewer images, name fewer stages, or ask for TOP_K or STATISTICS"
ImageRequest = pb.PredictRequest | pb.PredictStreamRequest | pb.TraceRequest


@dataclass(frozen=True, slots=True)
class _Checked:
    """Images that a version takes."""

    active: ActiveModel
    images: np.ndarray

    def __len__(self) -> int:
        return len(self.images)


class ForwardService:
    """Answers each call with the model that is active when it comes.

    Every method raises ServiceError and nothing else that a caller may cause.
    """

    def __init__(self, host: CurrentModel, limits: RequestLimits) -> None:
        self._host = host
        self._limits = limits

    async def predict(self, request: pb.PredictRequest, call: CallContext) -> pb.PredictResponse:
        """Return the logits of the images."""
        active = self._host.active
        images = _checked_images(active, request)
        done = await active.instance.predict(images, call)
        response = pb.PredictResponse(model=identity_message(active.identity))
        encode_into(response.logits, done.result)
        return response

    async def predict_stream(
        self, requests: AsyncIterator[pb.PredictStreamRequest | ServiceError], call: CallContext
    ) -> AsyncGenerator[pb.PredictStreamResponse, None]:
        """Yield the logits of each request, or its error, in the order of the requests."""

        def check(request: pb.PredictStreamRequest) -> _Checked:
            active = self._host.active
            return _Checked(active, _checked_images(active, request))

        def submit(checked: _Checked, call: CallContext) -> asyncio.Future[Done[np.ndarray]]:
            return checked.active.instance.predict(checked.images, call)

        stream = OrderedAnswers(check, submit, call, self._limits.max_batch_images)
        async with aclosing(stream.run(requests)) as answers:
            async for checked, answer in answers:
                active = checked.active if checked else self._host.active
                response = pb.PredictStreamResponse(model=identity_message(active.identity))
                if isinstance(answer, ServiceError):
                    response.error.ParseFromString(rich_status(answer).SerializeToString())
                else:
                    encode_into(response.logits, answer.result)
                del checked, answer  # not to be held while the stream waits for the next
                yield response
                del response

    async def trace(self, request: pb.TraceRequest, call: CallContext) -> pb.TraceResponse:
        """Return the logits of the images, and the stages that the request names."""
        active = self._host.active
        _check_model(active, request)
        decoded = _decode(active, request)
        violations = decoded if isinstance(decoded, list) else []
        plan = plan_trace(request, active.model.manifest.stages, violations)
        if not isinstance(decoded, list):
            needed = response_bytes(plan, active.model.manifest.stages, len(decoded))
            check_response_size(needed, self._limits, "stages", TRACE_ADVICE, violations)
        if isinstance(decoded, list) or violations:
            raise InvalidArgumentError(violations)
        images = decoded

        def pack(run: TracedRun, rows: slice) -> pb.TraceResponse:
            return _packed(active, plan, run, rows)

        done = await active.instance.trace(images, list(plan.details), pack, call)
        done.result.queue_seconds = done.queue_seconds
        return done.result

    async def get_model(
        self,
        request: pb.GetModelRequest,
        call: CallContext,
    ) -> pb.GetModelResponse:
        """Describe the served model."""
        active = self._host.active
        _check_model(active, request)
        model = active.model
        manifest, runner = model.manifest, model.runner
        return pb.GetModelResponse(
            model=identity_message(active.identity),
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
                    flops_per_image=model.flops_per_image[stage.name],
                    parameter_count=model.parameter_counts[stage.name],
                )
                for stage in manifest.stages
            ],
            labels=manifest.labels,
            parameter_count=sum(model.parameter_counts.values()),
            limits=pb.Limits(
                max_batch_images=self._limits.max_batch_images,
                max_response_bytes=self._limits.max_response_bytes,
            ),
            metrics=[
                pb.Metric(name=name, value=value)
                for name, value in sorted(manifest.metrics.items())
            ],
            reload=_reload(self._host),
            manifest_sha256=manifest.sha256,
        )


def _reload(host: CurrentModel) -> pb.Reload:
    found = pb.Reload(loaded_time=_timestamp(host.active_since))
    if (failure := host.failure) is not None:
        found.failure.version, found.failure.message = failure.version, failure.text
        found.failure.time.CopyFrom(_timestamp(failure.time))
    return found


def _timestamp(seconds: float) -> Timestamp:
    return Timestamp(seconds=int(seconds), nanos=int(seconds % 1 * 1e9))


def _checked_images(active: ActiveModel, request: ImageRequest) -> np.ndarray:
    _check_model(active, request)
    images = _decode(active, request)
    if isinstance(images, list):
        raise InvalidArgumentError(images)
    return images


def _decode(active: ActiveModel, request: ImageRequest) -> np.ndarray | list[Violation]:
    """Return the images, or everything that is wrong with them."""
    images = decode_images(request.images, active.decoder)
    if isinstance(images, list) and not request.HasField("images"):
        return [Violation("images", "required, but not set")]
    return images


def _check_model(active: ActiveModel, request: ImageRequest | pb.GetModelRequest) -> None:
    if not request.HasField("model"):
        return
    selector, manifest = request.model, active.model.manifest
    if selector.name not in ("", manifest.name) or selector.version not in (0, manifest.version):
        name, version = selector.name or manifest.name, selector.version or "any"
        raise model_not_found(name, version, manifest.name, manifest.version)


def _packed(active: ActiveModel, plan: TracePlan, run: TracedRun, rows: slice) -> pb.TraceResponse:
    response = pb.TraceResponse(model=identity_message(active.identity), run_seconds=run.seconds)
    stages = active.model.manifest.stages
    encode_into(response.logits, run.values(stages[-1].name)[rows])
    for stage in stages:
        if stage.name in plan.details:
            traced = response.stages.add()
            traced.flops_per_image = active.model.flops_per_image[stage.name]
            put_stage(stage, plan, run, rows, traced)
    return response
