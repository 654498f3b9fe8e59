"""The current model, which answers calls. Another version may replace it at any time."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from server.engine.images import ImageDecoder
from server.engine.instance import ModelInstance
from server.engine.model import ServedModel
from server.repository.versions import Failure


class ModelIdentity(NamedTuple):
    """What every response names its model by."""

    name: str
    version: int
    runtime: str


@dataclass(frozen=True, slots=True)
class ActiveModel:
    """A served version with its instance, and what its manifest says of requests and responses."""

    model: ServedModel
    instance: ModelInstance
    decoder: ImageDecoder
    identity: ModelIdentity


def activate(instance: ModelInstance, max_batch_images: int) -> ActiveModel:
    """Return an instance's model, ready to answer."""
    manifest, runner = instance.model.manifest, instance.model.runner
    identity = ModelIdentity(manifest.name, manifest.version, runner.runtime)
    decoder = ImageDecoder(manifest, max_batch_images)
    return ActiveModel(instance.model, instance, decoder, identity)


class CurrentModel:
    """Holds the active model for every service.

    Whoever answers a call reads `active` once and stays with what it got: from
    there to the instance nothing is awaited, so no request reaches the
    instance of a version that was retired.
    """

    def __init__(self, active: ActiveModel) -> None:
        self.active = active
        self.active_since = time.time()  # seconds since 1970
        self.failure: Failure | None = None  # of a version that should be active and is not
        self._replaced: list[Callable[[], None]] = []

    def replace(self, active: ActiveModel) -> ActiveModel:
        """Let another model answer from now on; return the one before."""
        before, self.active = self.active, active
        self.active_since = time.time()
        for callback in self._replaced:
            callback()
        return before

    def add_replace_callback(self, callback: Callable[[], None]) -> None:
        """Call back whenever another model answers."""
        self._replaced.append(callback)
