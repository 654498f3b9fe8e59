"""Result of `ForwardClient.attribute`."""

from dataclasses import dataclass

import numpy as np

from forward.v1 import forward_pb2 as pb
from forward_client.arrays import array_of


@dataclass(frozen=True)
class Attribution:
    """What the pixels of N images, and the units of a stage, contribute to a score of each.

    For "linear_region" and "integrated_gradients", for each image:
    `contributions` + `biases` + `residuals` = `scores`, and |`residuals`| is at most
    `residual_bounds`. For "saliency", the contributions are the gradient alone, and the three
    are 0.

    Attributes:
        contributions: of each pixel, or its gradient, float32 [N, H, W]; read-only.
        target_classes: class whose logit is the score, int64 [N].
        scores: as the runtime computed them, float64 [N].
        biases: what the contributions leave: the bias term of "linear_region", the score of the
            baseline of "integrated_gradients", float64 [N].
        residuals: scores less biases less the sums of the contributions, float64 [N].
        residual_bounds: proven bounds of their magnitudes, float64 [N].
        stage_contributions: of each unit of the stage, float32 [N, ...]; None if none was named.
        stage_biases: what these leave, float64 [N].
        model_name: name of the model.
        model_version: version of the model.
        runtime: what computed the scores: "onnx", "torchscript" or "pt2".
        queue_seconds: time from the reading of the request to the start of its run.
        run_seconds: time of the run and of the attribution.
    """

    contributions: np.ndarray
    target_classes: np.ndarray
    scores: np.ndarray
    biases: np.ndarray
    residuals: np.ndarray
    residual_bounds: np.ndarray
    stage_contributions: np.ndarray | None
    stage_biases: np.ndarray
    model_name: str
    model_version: int
    runtime: str
    queue_seconds: float
    run_seconds: float

    def strongest_units(self, count: int) -> np.ndarray:
        """Return the units with the largest contributions of either sign, int64 [N, count].

        The strongest first, as flattened positions; a stage with fewer units gives them all.

        Raises:
            ValueError: no stage was named.
        """
        if self.stage_contributions is None:
            raise ValueError("expected an attribution of a stage; name one: attribute(stage=...)")
        flat = np.abs(self.stage_contributions.reshape(len(self.scores), -1))
        ordered: np.ndarray = np.argsort(-flat, axis=1, kind="stable")[:, :count]
        return ordered

    @classmethod
    def of(cls, response: pb.AttributeResponse) -> "Attribution":
        """Return the record of a response."""
        each = response.attributions
        is_of_stage = response.HasField("stage_contributions")
        return cls(
            contributions=array_of(response.contributions),
            target_classes=np.array([one.target_class for one in each], np.int64),
            scores=np.array([one.score for one in each], np.float64),
            biases=np.array([one.bias for one in each], np.float64),
            residuals=np.array([one.residual for one in each], np.float64),
            residual_bounds=np.array([one.residual_bound for one in each], np.float64),
            stage_contributions=array_of(response.stage_contributions) if is_of_stage else None,
            stage_biases=np.array([one.stage_bias for one in each], np.float64),
            model_name=response.model.name,
            model_version=response.model.version,
            runtime=response.model.runtime,
            queue_seconds=response.queue_seconds,
            run_seconds=response.run_seconds,
        )
