"""The Open Inference Protocol: decode, compute, encode. Independent of any transport.

A second protocol for the model of forward.v1: the same checks, the same model instance.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.metadata import version

import numpy as np

from export.architecture import Runtime
from inference import open_inference_pb2 as oip
from server.api.methods import Service, UnaryMethod, message_decoder
from server.api.open_inference.codec import (
    INPUT_NAME,
    WantedOutput,
    are_logits_alone,
    decode_images,
    most_images,
    plan_outputs,
    put_outputs,
    response_bytes,
)
from server.api.open_inference.names import LOGITS, check_model, is_served, listed_outputs
from server.api.open_inference.repository_index import index_of
from server.api.open_inference.requests import InferRequest
from server.api.open_inference.statistics import statistics_of
from server.api.sizes import check_response_size
from server.context import CallContext
from server.engine.activations import TracedRun
from server.engine.instance import TraceSpec
from server.errors import InvalidArgumentError
from server.limits import RequestLimits
from server.observability.metrics import ServerMetrics
from server.repository.current import ActiveModel, CurrentModel
from server.repository.versions import VersionStatus

PACKAGE = "forward-server"
# By runtime, Triton's names of the platform and the backend. Of pt2 Triton has only a form that
# is compiled for one machine, so its platform has a name of ours, as the protocol allows.
PLATFORMS: dict[Runtime, tuple[str, str]] = {
    "onnx": ("onnxruntime_onnx", "onnxruntime"),
    "torchscript": ("pytorch_libtorch", "pytorch"),
    "pt2": ("pytorch_pt2", "pytorch"),
}
# The protocol has one type for an input. Both are taken; this one is smaller, and every byte of
# it is a valid pixel, also the random ones of a load generator.
INPUT_DATATYPE = "UINT8"
EXTENSIONS = (
    "classification",
    "model_configuration",
    "statistics",
    # Triton's model_repository has load and unload as well; it writes a part of one like this.
    "model_repository(index)",
)
ADVICE = "send fewer images, name fewer outputs, or ask for fewer classes"
DESCRIPTOR = oip.DESCRIPTOR.services_by_name["GRPCInferenceService"]
Statuses = Callable[[int], Sequence[VersionStatus]]  # of all versions, by the served one
_health = partial(UnaryMethod, served_while_draining=True)


class InferenceService:
    """Answers each call with the model that is active when it comes, under either of its names.

    Every method raises ServiceError and nothing else that a caller may cause.
    """

    def __init__(
        self,
        current: CurrentModel,
        limits: RequestLimits,
        is_draining: Callable[[], bool],
        statuses: Statuses,
        metrics: ServerMetrics,
    ) -> None:
        self._current = current
        self._statuses = statuses
        self._metrics = metrics
        self._limits = limits
        self._is_draining = is_draining
        self._version = version(PACKAGE)  # read from files, with garbage

    def table(self) -> Service:
        """Return the methods, for a transport."""
        decode = message_decoder
        return Service(
            DESCRIPTOR,
            (
                _health("ServerLive", self.server_live, decode(oip.ServerLiveRequest)),
                _health("ServerReady", self.server_ready, decode(oip.ServerReadyRequest)),
                _health("ModelReady", self.model_ready, decode(oip.ModelReadyRequest)),
                UnaryMethod(
                    "ServerMetadata", self.server_metadata, decode(oip.ServerMetadataRequest)
                ),
                UnaryMethod("ModelMetadata", self.model_metadata, decode(oip.ModelMetadataRequest)),
                UnaryMethod("ModelConfig", self.model_config, decode(oip.ModelConfigRequest)),
                UnaryMethod("ModelInfer", self.model_infer, decode(oip.ModelInferRequest)),
                UnaryMethod(
                    "ModelStatistics", self.model_statistics, decode(oip.ModelStatisticsRequest)
                ),
                UnaryMethod(
                    "RepositoryIndex", self.repository_index, decode(oip.RepositoryIndexRequest)
                ),
            ),
        )

    async def server_live(
        self, request: oip.ServerLiveRequest, context: CallContext
    ) -> oip.ServerLiveResponse:
        """Tell that the server is alive."""
        return oip.ServerLiveResponse(live=True)

    async def server_ready(
        self, request: oip.ServerReadyRequest, context: CallContext
    ) -> oip.ServerReadyResponse:
        """Tell if the server takes requests."""
        return oip.ServerReadyResponse(ready=not self._is_draining())

    async def model_ready(
        self, request: oip.ModelReadyRequest, context: CallContext
    ) -> oip.ModelReadyResponse:
        """Tell if a model takes requests; one that is not served does not."""
        manifest = self._current.active.model.manifest
        served = is_served(manifest, request.name, request.version, "version")
        return oip.ModelReadyResponse(ready=served and not self._is_draining())

    async def server_metadata(
        self, request: oip.ServerMetadataRequest, context: CallContext
    ) -> oip.ServerMetadataResponse:
        """Describe the server."""
        return oip.ServerMetadataResponse(
            name="forward",
            version=self._version,
            extensions=EXTENSIONS,
        )

    async def model_metadata(
        self, request: oip.ModelMetadataRequest, context: CallContext
    ) -> oip.ModelMetadataResponse:
        """Describe the served model's input and outputs."""
        active = self._current.active
        manifest, metadata = active.model.manifest, oip.ModelMetadataResponse.TensorMetadata
        check_model(manifest, request.name, request.version, "version")
        context.record.asked(active.identity)
        platform, _ = PLATFORMS[active.model.runner.runtime]
        images = metadata(
            name=INPUT_NAME, datatype=INPUT_DATATYPE, shape=(-1, *manifest.input_shape)
        )
        return oip.ModelMetadataResponse(
            name=request.name,
            versions=[str(manifest.version)],
            platform=platform,
            inputs=[images],
            outputs=[
                metadata(name=name, datatype="FP32", shape=(-1, *stage.shape))
                for name, stage in listed_outputs(manifest, request.name).items()
            ],
        )

    async def model_config(
        self, request: oip.ModelConfigRequest, context: CallContext
    ) -> oip.ModelConfigResponse:
        """Describe the served model as Triton configures one."""
        active = self._current.active
        manifest = active.model.manifest
        check_model(manifest, request.name, request.version, "version")
        context.record.asked(active.identity)
        outputs = listed_outputs(manifest, request.name)
        platform, backend = PLATFORMS[active.model.runner.runtime]
        images = oip.ModelInput(
            name=INPUT_NAME,
            data_type=f"TYPE_{INPUT_DATATYPE}",
            dims=manifest.input_shape,
        )
        config = oip.ModelConfig(
            name=request.name,
            platform=platform,
            backend=backend,
            max_batch_size=most_images(
                [WantedOutput(name, stage) for name, stage in outputs.items()], self._limits
            ),
            input=[images],
            output=[
                oip.ModelOutput(name=name, data_type=oip.TYPE_FP32, dims=stage.shape)
                for name, stage in outputs.items()
            ],
        )
        return oip.ModelConfigResponse(config=config)

    async def model_statistics(
        self, request: oip.ModelStatisticsRequest, context: CallContext
    ) -> oip.ModelStatisticsResponse:
        """Tell what was computed since the server started, as the metrics have it."""
        manifest = self._current.active.model.manifest
        return statistics_of(request, manifest, self._metrics, self._limits)

    async def repository_index(
        self, request: oip.RepositoryIndexRequest, context: CallContext
    ) -> oip.RepositoryIndexResponse:
        """List the versions in the folder of the model, as the last look into it found them."""
        manifest = self._current.active.model.manifest
        return index_of(request, manifest, self._statuses(manifest.version))

    async def model_infer(
        self, request: InferRequest, context: CallContext
    ) -> oip.ModelInferResponse:
        """Return the outputs that the request names, of its images."""
        active = self._current.active
        manifest = active.model.manifest
        check_model(manifest, request.model_name, request.model_version, "model_version")
        decoded = decode_images(request, active.decoder)
        violations = decoded if isinstance(decoded, list) else []
        outputs = plan_outputs(request, manifest, violations)
        if not (isinstance(decoded, list) or are_logits_alone(outputs)):
            # Logits alone are as many bytes as the response of Predict, which has no limit.
            needed = response_bytes(outputs, len(decoded))
            check_response_size(needed, self._limits, "outputs", ADVICE, violations)
        if isinstance(decoded, list) or violations:
            raise InvalidArgumentError(violations)
        images, record = decoded, context.record
        record.asked(active.identity, len(images))
        stages = [wanted.stage.name for wanted in outputs if wanted.name != LOGITS]
        if not stages:
            predicted = active.instance.predict(images, context.deadline, record)
            context.add_done_callback(predicted.complete)
            batched = await predicted.result
            record.ran(batched.queue_seconds, batched.run)
            logits = {manifest.stages[-1].name: batched.result}
            return _response(active, request, outputs, logits)

        def pack(run: TracedRun, rows: slice) -> oip.ModelInferResponse:
            started = time.perf_counter()
            values = {
                name: run.values(name)[rows] for name in {wanted.stage.name for wanted in outputs}
            }
            response = _response(active, request, outputs, values)
            record.pack_seconds = time.perf_counter() - started
            return response

        traced = active.instance.trace(images, TraceSpec(stages), pack, context.deadline, record)
        context.add_done_callback(traced.complete)
        packed = await traced.result
        record.ran(packed.queue_seconds, packed.run, packed.run.seconds - record.pack_seconds)
        return packed.result


def _response(
    active: ActiveModel,
    request: InferRequest,
    outputs: Sequence[WantedOutput],
    values: Mapping[str, np.ndarray],
) -> oip.ModelInferResponse:
    response = oip.ModelInferResponse(
        model_name=request.model_name,
        model_version=str(active.identity.version),
        id=request.id,
    )
    put_outputs(outputs, values, response)
    return response
