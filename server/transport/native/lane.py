"""The lane: Predict answered in the extension, by the current version, once it is proven equal."""

import asyncio
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
import structlog

from server.api.lane import lane_model
from server.limits import RequestLimits
from server.observability.metrics import ServerMetrics
from server.observability.supervision import keep_running
from server.repository.current import ActiveModel, CurrentModel
from server.transport.native.extension import Extension
from server.transport.native.session import open_lane_session

log = structlog.get_logger()


class LaneUpdates:
    """Keeps the lane at the current version: off from a replacement until the next is proven.

    Args:
        extension: the server of the extension.
        current: whose versions the lane follows.
        limits: of the services.
        threads: of a run.
        metrics: tell if the lane is on.
    """

    def __init__(
        self,
        extension: Extension,
        current: CurrentModel,
        limits: RequestLimits,
        threads: int,
        metrics: ServerMetrics,
    ) -> None:
        self._extension, self._current = extension, current
        self._limits, self._threads, self._metrics = limits, threads, metrics
        self._answering: ActiveModel | None = None
        self._replaced = asyncio.Event()
        current.add_replace_callback(self._switch_off)

    def _switch_off(self) -> None:
        # At once: no answer of the version before may come after the first of the next.
        self._extension.set_lane(None, None)
        self._answering = None
        self._metrics.set_lane(is_on=False)
        self._replaced.set()

    async def update(self) -> None:
        """Switch the lane on for the current version, if it computes in it as the server does."""
        active = self._current.active
        session, reason = await asyncio.to_thread(
            open_lane_session, active.model, self._threads, self._limits.max_batch_images
        )
        if active is not self._current.active:
            return  # it was replaced meanwhile, and another update comes
        if session is None:
            log.info("Predict takes the way through Python", reason=reason)
            return
        self._metrics.update()  # what the lane, which is off, has counted is of the version before
        self._metrics.engine.lane_version = active.identity.version
        self._extension.set_lane(session, asdict(lane_model(active, self._limits)))
        self._answering = active
        self._extension.set_samples(active.instance.drift is not None)
        self._metrics.set_lane(is_on=True)

    @property
    def model_name(self) -> str:
        """The name of the model that the lane answers by."""
        return self._current.active.model.manifest.name

    def take_samples(self, samples: Sequence[tuple[int, bytes, bool, bytes]]) -> None:
        """Count images for drift, but those of a version that was replaced meanwhile.

        Each is the number of its version, its pixels, whether they are UINT8, and its logits.
        """
        if (active := self._answering) is None or active.instance.drift is None:
            return
        manifest, observe = active.model.manifest, active.instance.drift.observe
        for version, pixels, is_uint8, logits in samples:
            if version == manifest.version:
                image = np.frombuffer(pixels, np.uint8 if is_uint8 else np.float32)
                shaped = image.reshape(manifest.input_shape)
                observe(shaped, np.frombuffer(logits, np.float32))

    async def keep_updating(self) -> None:
        """Follow the replacements until it is cancelled."""
        await keep_running("lane", self._follow, self._metrics.count_failure)

    async def _follow(self) -> None:
        while True:
            await self._replaced.wait()
            self._replaced.clear()
            await self.update()
