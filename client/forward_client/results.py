"""Results of calls: NumPy arrays and dataclasses instead of messages."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from forward.v1 import forward_pb2 as pb
from forward_client.arrays import array_of
from forward_client.trace_parts import Certificate, UnitStatistics


@dataclass(frozen=True)
class ReloadFailure:
    """Why a version that should be served is not.

    Attributes:
        version: the version; the served one if its own folder is gone or damaged.
        message: what was expected, what was found and what to do.
        time: when it was last tried, in UTC.
    """

    version: int
    message: str
    time: datetime


@dataclass(frozen=True)
class Reload:
    """How the served version compares with those in the server's model repository.

    Attributes:
        loaded_time: when the served version was loaded, in UTC.
        failure: why another version should be served and is not; None if none should.
    """

    loaded_time: datetime
    failure: ReloadFailure | None

    @classmethod
    def of(cls, reload: pb.Reload) -> "Reload":
        """Return the record of a message."""
        failure = None
        if reload.HasField("failure"):
            failure = ReloadFailure(
                version=reload.failure.version,
                message=reload.failure.message,
                time=reload.failure.time.ToDatetime(UTC),
            )
        return cls(loaded_time=reload.loaded_time.ToDatetime(UTC), failure=failure)


@dataclass(frozen=True)
class Model:
    """The served model.

    Attributes:
        name: of the model, for example "mnist".
        version: of the model, 1 or more.
        runtime: what computes it: "onnx", "torchscript" or "pt2".
        device: "cpu" or "cuda".
        input_shape: (H, W) of an image.
        labels: of the classes, in the order of the logits.
        stages: names of the stages, in order; `ForwardClient.trace` takes them.
        operations: those of the stages: "Input", "Flatten", "Linear", "ReLU" or "Output".
        max_batch_images: the most images in a request.
        metrics: figures from the training, by name, for example "test_accuracy".
        manifest_sha256: SHA-256 of the bundle's manifest, which has those of all files: it tells
            apart two contents of the same version.
        reload: whether another version should be served and why it is not.
    """

    name: str
    version: int
    runtime: str
    device: str
    input_shape: tuple[int, ...]
    labels: tuple[str, ...]
    stages: tuple[str, ...]
    operations: tuple[str, ...]
    max_batch_images: int
    metrics: dict[str, float]
    manifest_sha256: str
    reload: Reload

    @classmethod
    def of(cls, response: pb.GetModelResponse) -> "Model":
        """Return the record of a response."""
        return cls(
            name=response.model.name,
            version=response.model.version,
            runtime=response.model.runtime,
            device=response.device,
            input_shape=tuple(response.input.shape),
            labels=tuple(response.labels),
            stages=tuple(stage.name for stage in response.stages),
            operations=tuple(stage.operation for stage in response.stages),
            max_batch_images=response.limits.max_batch_images,
            metrics={metric.name: metric.value for metric in response.metrics},
            manifest_sha256=response.manifest_sha256,
            reload=Reload.of(response.reload),
        )


@dataclass(frozen=True)
class Prediction:
    """The logits of a batch of images, and the model that computed them.

    Attributes:
        logits: one raw score for each class, float32 [N, classes]; read-only.
        model_name: name of the model.
        model_version: version of the model.
        runtime: what computed them: "onnx", "torchscript" or "pt2".
    """

    logits: np.ndarray
    model_name: str
    model_version: int
    runtime: str

    @classmethod
    def of(cls, response: pb.PredictResponse | pb.PredictStreamResponse) -> "Prediction":
        """Return the record of a response."""
        return cls(
            logits=array_of(response.logits),
            model_name=response.model.name,
            model_version=response.model.version,
            runtime=response.model.runtime,
        )

    @property
    def classes(self) -> np.ndarray:
        """The class with the largest logit of each image, int64 [N]."""
        return np.argmax(self.logits, axis=1)

    @property
    def probabilities(self) -> np.ndarray:
        """The softmax of the logits, float64 [N, classes]."""
        exponentials = np.exp(
            self.logits.astype(np.float64) - self.logits.max(axis=1, keepdims=True)
        )
        total: np.ndarray = exponentials.sum(axis=1, keepdims=True)
        return exponentials / total


@dataclass(frozen=True)
class TracedStage:
    """One stage of a trace.

    Attributes:
        name: of the stage, for example "relu".
        operation: "Input", "Flatten", "Linear", "ReLU" or "Output".
        shape: of its output, (N, …).
        flops_per_image: floating-point operations for one image.
        statistics: over all elements of all images, by name: "min", "max", "mean",
            "standard_deviation", "l2_norm", "zero_share", "nan_count", "infinity_count".
        values: the output, float32 of `shape`, for detail "full"; else None.
        top_values: for detail "top_k", for each image its largest values as pairs of position and
            value, the largest first; else empty.
        changed: whether an intervention changed this stage itself.
        units: statistics of each unit, for detail "units"; else None.
        bound: largest proven distance of any element from the exact forward pass, in any runtime
            of this precision; None without `certify`.
    """

    name: str
    operation: str
    shape: tuple[int, ...]
    flops_per_image: int
    statistics: dict[str, float]
    values: np.ndarray | None
    top_values: tuple[tuple[tuple[int, float], ...], ...]
    changed: bool = False
    units: UnitStatistics | None = None
    bound: float | None = None

    @classmethod
    def of(cls, stage: pb.TracedStage) -> "TracedStage":
        """Return the record of a stage of a response."""
        return cls(
            name=stage.name,
            operation=stage.operation,
            shape=tuple(stage.shape),
            flops_per_image=stage.flops_per_image,
            statistics={
                field.name: getattr(stage.statistics, field.name)
                for field in pb.Statistics.DESCRIPTOR.fields
            },
            values=array_of(stage.values) if stage.HasField("values") else None,
            top_values=tuple(
                tuple(zip(top.indices, top.values, strict=True)) for top in stage.top_values
            ),
            changed=stage.changed,
            units=UnitStatistics.of(stage.units) if stage.HasField("units") else None,
            bound=stage.bound if stage.HasField("bound") else None,
        )


@dataclass(frozen=True)
class Trace(Prediction):
    """A prediction with the stages of its forward pass; has the attributes of `Prediction`, too.

    Attributes:
        stages: the stages asked for, in the order of the model.
        queue_seconds: time from the reading of the request to the start of its run.
        run_seconds: time of the run, which other traces may have shared.
        unchanged_logits: the logits without the interventions, float32 [N, classes]; None if they
            were not asked for.
        certificates: one for each image; empty without `certify`.
    """

    stages: tuple[TracedStage, ...]
    queue_seconds: float
    run_seconds: float
    unchanged_logits: np.ndarray | None = None
    certificates: tuple[Certificate, ...] = ()

    @classmethod
    def of_trace(cls, response: pb.TraceResponse) -> "Trace":
        """Return the record of a response."""
        is_unchanged = response.HasField("unchanged_logits")
        return cls(
            logits=array_of(response.logits),
            model_name=response.model.name,
            model_version=response.model.version,
            runtime=response.model.runtime,
            stages=tuple(TracedStage.of(stage) for stage in response.stages),
            queue_seconds=response.queue_seconds,
            run_seconds=response.run_seconds,
            unchanged_logits=array_of(response.unchanged_logits) if is_unchanged else None,
            certificates=tuple(map(Certificate.of, response.certificates)),
        )

    @property
    def unchanged(self) -> Prediction | None:
        """The prediction without the interventions; None if it was not asked for."""
        if self.unchanged_logits is None:
            return None
        return Prediction(self.unchanged_logits, self.model_name, self.model_version, self.runtime)


def joined(predictions: Sequence[Prediction]) -> Prediction:
    """Return the predictions of several requests as one, in their order; a single one as it is."""
    first = predictions[0]
    if len(predictions) == 1:
        return first
    logits = np.concatenate([prediction.logits for prediction in predictions])
    return Prediction(logits, first.model_name, first.model_version, first.runtime)
