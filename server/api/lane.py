"""What the native transport needs to answer Predict as the services here would, to the byte."""

from dataclasses import dataclass

import numpy as np

from server.api.forward_v1.codec import identity_message
from server.api.open_inference.names import served_names
from server.limits import RequestLimits
from server.repository.current import ActiveModel


@dataclass(frozen=True)
class LaneModel:
    """A version as the lane reads requests for it; native/src/lane/model.rs has the same fields."""

    name: str
    version: int
    identity: bytes  # forward.v1.ModelIdentity, serialized
    input_shape: tuple[int, ...]  # of one image
    classes: int
    max_batch_images: int
    max_float_bits: int | None  # of the largest pixel, the smallest being 0; None: it is not 0
    logits_names: tuple[str, ...]  # of Open Inference, which list the logits alone
    stages_names: tuple[str, ...]  # which list every stage


def lane_model(active: ActiveModel, limits: RequestLimits) -> LaneModel:
    """Describe a version to the lane."""
    manifest = active.model.manifest
    (classes,) = manifest.stages[-1].shape
    starts_at_0 = manifest.input_min == 0
    plain, with_stages = served_names(manifest)
    return LaneModel(
        name=manifest.name,
        version=manifest.version,
        identity=identity_message(active.identity).SerializeToString(),
        input_shape=manifest.input_shape,
        classes=classes,
        max_batch_images=limits.max_batch_images,
        max_float_bits=int(np.float32(manifest.input_max).view(np.uint32)) if starts_at_0 else None,
        logits_names=(plain,),
        stages_names=(with_stages,),
    )
