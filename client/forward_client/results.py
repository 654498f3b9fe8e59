"""Results of calls: NumPy arrays and dataclasses instead of messages."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from forward.v1 import forward_pb2 as pb


@dataclass(frozen=True)
class Model:
    """The served model, as GetModel describes it."""

    name: str
    version: int
    runtime: str
    device: str
    input_shape: tuple[int, ...]
    labels: tuple[str, ...]
    stages: tuple[str, ...]
    max_batch_images: int
    metrics: dict[str, float]

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
            max_batch_images=response.limits.max_batch_images,
            metrics={metric.name: metric.value for metric in response.metrics},
        )


@dataclass(frozen=True)
class Prediction:
    """The logits of a batch, float32 [N, classes], and the model that computed them."""

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
    """One stage: `values` [N, …] for detail "full", `top_values` for "top_k", else empty."""

    name: str
    operation: str
    shape: tuple[int, ...]
    flops_per_image: int
    statistics: dict[str, float]
    values: np.ndarray | None
    top_values: tuple[tuple[tuple[int, float], ...], ...]  # for each image (position, value)

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
        )


@dataclass(frozen=True)
class Trace(Prediction):
    """A prediction with the stages of its forward pass."""

    stages: tuple[TracedStage, ...]
    queue_seconds: float
    run_seconds: float


def joined(predictions: Sequence[Prediction]) -> Prediction:
    """Return the predictions of several requests as one, in their order; a single one as it is."""
    first = predictions[0]
    if len(predictions) == 1:
        return first
    logits = np.concatenate([prediction.logits for prediction in predictions])
    return Prediction(logits, first.model_name, first.model_version, first.runtime)


def array_of(tensor: pb.Tensor) -> np.ndarray:
    """Return a FLOAT32 tensor as an array; a view of its bytes, hence read-only."""
    return np.frombuffer(tensor.data, "<f4").reshape(tuple(tensor.shape))
