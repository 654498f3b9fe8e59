"""forward.v1.ForwardService: decode, compute, encode. Independent of any transport."""

import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable

import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp

from forward.v1 import forward_pb2 as pb
from server.api.forward_v1.activations import (
    TracePlan,
    largest_detail,
    plan_trace,
    put_stage,
    response_bytes,
)
from server.api.forward_v1.attribution import plan_attribution, put_attributions
from server.api.forward_v1.certificates import put_proof
from server.api.forward_v1.codec import (
    check_model,
    checked_images,
    decode_images,
    encode_into,
    identity_message,
)
from server.api.forward_v1.comparison import comparison_message, plan_comparison
from server.api.forward_v1.stream import PredictStream
from server.api.forward_v1.training import (
    history_message,
    parameters_message,
    plan_parameters,
)
from server.api.forward_v1.zero_copy import ImageRequest, image_decoder
from server.api.methods import Service, StreamMethod, UnaryMethod, message_decoder
from server.api.sizes import check_response_size
from server.context import CallContext
from server.engine.activations import TracedRun
from server.engine.attribution import AttributedRun
from server.engine.compared import Compared
from server.engine.comparisons import Comparisons
from server.engine.staging import pixels_of
from server.errors import InvalidArgumentError, ServiceError, Violation
from server.limits import RequestLimits
from server.repository.current import ActiveModel, CurrentModel

NO_INTERVENTIONS = (
    "the served version was exported before interventions; publish one with this release"
)
TRACE_ADVICE = "send fewer images, name fewer stages, or ask for TOP_K or STATISTICS"
DESCRIPTOR = pb.DESCRIPTOR.services_by_name["ForwardService"]


class ForwardService:
    """Answers each call with the model that is active when it comes.

    Every method raises ServiceError and nothing else that a caller may cause.
    """

    def __init__(self, current: CurrentModel, limits: RequestLimits) -> None:
        self._current = current
        self._limits = limits
        self._comparisons = Comparisons(limits.max_comparisons)

    def table(self) -> Service:
        """Return the methods, for a transport."""
        return Service(
            DESCRIPTOR,
            (
                UnaryMethod("Predict", self.predict, image_decoder(pb.PredictRequest)),
                StreamMethod(
                    "PredictStream", self.predict_stream, image_decoder(pb.PredictStreamRequest)
                ),
                UnaryMethod("Trace", self.trace, image_decoder(pb.TraceRequest)),
                UnaryMethod("Attribute", self.attribute, image_decoder(pb.AttributeRequest)),
                UnaryMethod("Compare", self.compare, image_decoder(pb.CompareRequest)),
                UnaryMethod(
                    "GetTrainingHistory",
                    self.get_training_history,
                    message_decoder(pb.GetTrainingHistoryRequest),
                ),
                UnaryMethod(
                    "GetParameters", self.get_parameters, message_decoder(pb.GetParametersRequest)
                ),
                UnaryMethod("GetModel", self.get_model, message_decoder(pb.GetModelRequest)),
            ),
        )

    async def predict(
        self, request: ImageRequest[pb.PredictRequest], context: CallContext
    ) -> pb.PredictResponse:
        """Return the logits of the images."""
        active, record = self._current.active, context.record
        images = checked_images(request, active)
        record.asked(active.identity, len(images))
        submission = active.instance.predict(images, context.deadline, record)
        context.add_done_callback(submission.complete)
        batched = await submission.result
        record.ran(batched.queue_seconds, batched.run)
        response = pb.PredictResponse(model=identity_message(active.identity))
        encode_into(response.logits, batched.result)
        return response

    def predict_stream(
        self,
        requests: AsyncIterator[ImageRequest[pb.PredictStreamRequest] | ServiceError],
        context: CallContext,
    ) -> AsyncGenerator[pb.PredictStreamResponse, None]:
        """Yield the logits of each request, or its error, in the order of the requests."""
        stream = PredictStream(self._current, context, self._limits.max_batch_images)
        return stream.responses(requests)

    async def trace(
        self, request: ImageRequest[pb.TraceRequest], context: CallContext
    ) -> pb.TraceResponse:
        """Return the logits of the images, and the stages that the request names."""
        active, record = self._current.active, context.record
        check_model(request.message, active)
        images, plan = self._plan_trace(request, active)
        record.asked(active.identity, len(images))
        record.trace_detail = largest_detail(plan)

        def pack(run: TracedRun, rows: slice) -> pb.TraceResponse:
            started = time.perf_counter()
            response = _pack(active, plan, run, rows)
            record.pack_seconds = time.perf_counter() - started
            if plan.spec.certify:
                put_proof(active.instance.prove(images, plan.spec), response)
            return response

        submission = active.instance.trace(images, plan.spec, pack, context.deadline, record)
        context.add_done_callback(submission.complete)
        batched = await submission.result
        record.ran(batched.queue_seconds, batched.run, batched.result.run_seconds)
        batched.result.queue_seconds = batched.queue_seconds
        return batched.result

    def _plan_trace(
        self, request: ImageRequest[pb.TraceRequest], active: ActiveModel
    ) -> tuple[np.ndarray, TracePlan]:
        """Return the images and what to return of them, or raise all violations at once."""
        stages = active.model.manifest.stages
        images = decode_images(request, active.decoder)
        violations = images if isinstance(images, list) else []
        count = None if isinstance(images, list) else len(images)
        plan = plan_trace(request.message, stages, count, violations)
        if plan.spec.interventions and not active.model.runner.can_intervene:
            violations.append(Violation("interventions", NO_INTERVENTIONS))
        if isinstance(images, list):
            raise InvalidArgumentError(violations)
        needed = response_bytes(plan, stages, len(images))
        check_response_size(needed, self._limits, "stages", TRACE_ADVICE, violations)
        if violations:
            raise InvalidArgumentError(violations)
        return images, plan

    async def attribute(
        self, request: ImageRequest[pb.AttributeRequest], context: CallContext
    ) -> pb.AttributeResponse:
        """Return what each pixel, and each unit of a stage, contributes to a score."""
        active, record = self._current.active, context.record
        check_model(request.message, active)
        images, question = plan_attribution(request, active, self._limits)
        record.asked(active.identity, len(images))

        def pack(run: AttributedRun) -> pb.AttributeResponse:
            started = time.perf_counter()
            response = pb.AttributeResponse(model=identity_message(active.identity))
            put_attributions(run, response)
            record.pack_seconds = time.perf_counter() - started
            return response

        submission = active.instance.attribute(images, question, pack, context.deadline, record)
        context.add_done_callback(submission.complete)
        batched = await submission.result
        record.ran(batched.queue_seconds, batched.run, batched.result.run_seconds)
        batched.result.queue_seconds = batched.queue_seconds
        return batched.result

    async def compare(
        self, request: ImageRequest[pb.CompareRequest], context: CallContext
    ) -> pb.CompareResponse:
        """Return how far each runtime is from the exact forward pass of the images."""
        active = self._current.active
        check_model(request.message, active)
        images, names = plan_comparison(request, active)
        context.record.asked(active.identity, len(images))

        def compare(is_stopped: Callable[[], bool]) -> Compared:
            return active.model.compared.compare(names, pixels_of(images), is_stopped)

        context.record.phase = "run"
        return comparison_message(active, await self._comparisons.run(compare, context.deadline))

    async def get_training_history(
        self, request: pb.GetTrainingHistoryRequest, context: CallContext
    ) -> pb.GetTrainingHistoryResponse:
        """Return the record of the served model's training."""
        active = self._current.active
        check_model(request, active)
        context.record.asked(active.identity)
        return history_message(active, self._limits)

    async def get_parameters(
        self, request: pb.GetParametersRequest, context: CallContext
    ) -> pb.GetParametersResponse:
        """Return the parameters that are served, or those after an epoch of the training."""
        active = self._current.active
        check_model(request, active)
        context.record.asked(active.identity)
        return parameters_message(active, plan_parameters(request, active, self._limits))

    async def get_model(
        self, request: pb.GetModelRequest, context: CallContext
    ) -> pb.GetModelResponse:
        """Describe the served model."""
        active = self._current.active
        check_model(request, active)
        context.record.asked(active.identity)
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
            reload=_reload(self._current),
            manifest_sha256=manifest.sha256,
        )


def _reload(current: CurrentModel) -> pb.Reload:
    found = pb.Reload(loaded_time=_timestamp(current.active_since))
    if (failure := current.failure) is not None:
        found.failure.version, found.failure.message = failure.version, failure.text
        found.failure.time.CopyFrom(_timestamp(failure.time))
    return found


def _timestamp(seconds: float) -> Timestamp:
    return Timestamp(seconds=int(seconds), nanos=int(seconds % 1 * 1e9))


def _pack(active: ActiveModel, plan: TracePlan, run: TracedRun, rows: slice) -> pb.TraceResponse:
    response = pb.TraceResponse(model=identity_message(active.identity), run_seconds=run.seconds)
    stages = active.model.manifest.stages
    encode_into(response.logits, run.values(stages[-1].name)[rows])
    if plan.spec.unchanged_logits:
        encode_into(response.unchanged_logits, run.unchanged_logits[rows])
    for stage in stages:
        if stage.name in plan.details:
            traced = response.stages.add()
            traced.flops_per_image = active.model.flops_per_image[stage.name]
            put_stage(stage, plan, run, rows, traced)
    return response
