"""Results of `ForwardClient.training_history` and `ForwardClient.parameters`."""

from dataclasses import dataclass

import numpy as np

from forward.v1 import forward_pb2 as pb
from forward_client.arrays import array_of


@dataclass(frozen=True)
class Epoch:
    """One epoch of a training: a pass over all training images.

    Attributes:
        epoch: number of the epoch, from 1 on.
        train_loss: mean cross-entropy over the distorted training images, in nats, with the
            parameters at each step.
        train_accuracy: share of these images that were classified correctly, in 0..1.
        held_out_loss: mean cross-entropy over the held-out images, in nats, with the averaged
            parameters, which are published.
        held_out_accuracy: share of the held-out images that were classified correctly, in 0..1.
        learning_rate: at the end of the epoch.
        seconds: time of the epoch.
        observation: what the epoch did, in words.
    """

    epoch: int
    train_loss: float
    train_accuracy: float
    held_out_loss: float
    held_out_accuracy: float
    learning_rate: float
    seconds: float
    observation: str

    @classmethod
    def of(cls, epoch: pb.Epoch) -> "Epoch":
        """Return the record of a message."""
        return cls(**{field.name: getattr(epoch, field.name) for field in epoch.DESCRIPTOR.fields})


@dataclass(frozen=True)
class TrainingHistory:
    """The record of the served model's training.

    Attributes:
        epochs: in order.
        snapshot_epochs: epochs of which `ForwardClient.parameters` returns the parameters,
            ascending; 0 is before the training. Empty if none were kept.
        served_epoch: epoch after which the parameters are those that are served; None if the
            record does not tell.
        model_name: name of the model.
        model_version: version of the model.
        runtime: what computes it: "onnx", "torchscript" or "pt2".
    """

    epochs: tuple[Epoch, ...]
    snapshot_epochs: tuple[int, ...]
    served_epoch: int | None
    model_name: str
    model_version: int
    runtime: str

    @classmethod
    def of(cls, response: pb.GetTrainingHistoryResponse) -> "TrainingHistory":
        """Return the record of a response."""
        return cls(
            epochs=tuple(map(Epoch.of, response.epochs)),
            snapshot_epochs=tuple(response.snapshot_epochs),
            served_epoch=response.served_epoch or None,
            model_name=response.model.name,
            model_version=response.model.version,
            runtime=response.model.runtime,
        )


@dataclass(frozen=True)
class StageParameters:
    """The parameters of a stage of operation "Linear": its output is weight · x + bias.

    Attributes:
        stage: name of the stage, for example "linear1".
        weight: [outputs, inputs], float32 as served, float16 of an epoch; read-only.
        bias: [outputs], of the same type; read-only.
    """

    stage: str
    weight: np.ndarray
    bias: np.ndarray


@dataclass(frozen=True)
class Parameters:
    """The parameters of the served model, or of an epoch of its training.

    They take plain pixels: what normalises the images is part of the first stage.

    Attributes:
        stages: those asked for, in the order of the model.
        epoch: the epoch asked for; None for the parameters that are served.
        model_name: name of the model.
        model_version: version of the model.
        runtime: what computes it: "onnx", "torchscript" or "pt2".
    """

    stages: tuple[StageParameters, ...]
    epoch: int | None
    model_name: str
    model_version: int
    runtime: str

    @classmethod
    def of(cls, response: pb.GetParametersResponse) -> "Parameters":
        """Return the record of a response."""
        return cls(
            stages=tuple(
                StageParameters(each.stage, array_of(each.weight), array_of(each.bias))
                for each in response.stages
            ),
            epoch=response.epoch if response.HasField("epoch") else None,
            model_name=response.model.name,
            model_version=response.model.version,
            runtime=response.model.runtime,
        )
