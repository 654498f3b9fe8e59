"""The active model: what answers calls now. Another version may take its place at any time."""

import time
from dataclasses import dataclass

from forward.v1 import forward_pb2 as pb
from server.codec import ImageCodec
from server.corridor import Corridor
from server.models import ServedModel
from server.versions import Failure


@dataclass(frozen=True, slots=True)
class ActiveModel:
    """A served version with its corridor, and what its manifest says of requests and answers."""

    model: ServedModel
    corridor: Corridor
    codec: ImageCodec
    identity: pb.ModelIdentity


def activate(corridor: Corridor, max_batch_images: int) -> ActiveModel:
    """Return a corridor's model, ready to answer."""
    manifest, runner = corridor.model.manifest, corridor.model.runner
    identity = pb.ModelIdentity(
        name=manifest.name, version=manifest.version, runtime=runner.runtime
    )
    codec = ImageCodec(manifest, max_batch_images)
    return ActiveModel(corridor.model, corridor, codec, identity)


class ModelHost:
    """Holds the active model for every service.

    Whoever answers a call reads `active` once and stays with what it got: from
    there to the corridor nothing is awaited, so no version is left with a request
    that its corridor does not know of.
    """

    def __init__(self, active: ActiveModel) -> None:
        self.active = active
        self.active_since = time.time()  # to be shown
        self.failure: Failure | None = None  # of a version that should be active and is not

    def swap(self, active: ActiveModel) -> ActiveModel:
        """Let another answer from now on; return the one that did."""
        before, self.active = self.active, active
        self.active_since = time.time()
        return before
