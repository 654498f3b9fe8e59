"""The lane: Predict answered in the extension, by the current version, once it is proven equal."""

import asyncio
from collections.abc import Callable
from dataclasses import asdict
from typing import Protocol

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


class TakesSamples(Protocol):
    """Keeps statistics of images."""

    def observe(self, image: np.ndarray, logits: np.ndarray) -> None:
        """Take an image, FLOAT32 in 0..1 or UINT8, and its logits [classes]."""
        ...


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
        self._samples_for: Callable[[ActiveModel], TakesSamples | None] = lambda _: None
        self._answering: ActiveModel | None = None
        self._samples: TakesSamples | None = None
        self._replaced = asyncio.Event()
        current.add_replace_callback(self._switch_off)

    def sample_for(self, samples_for: Callable[[ActiveModel], TakesSamples | None]) -> None:
        """Pass samples of images on to what each version has for them, from the next update on."""
        self._samples_for = samples_for

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
        self._extension.set_lane(session, asdict(lane_model(active, self._limits)))
        self._answering, self._samples = active, self._samples_for(active)
        self._extension.set_samples(self._samples is not None)
        self._metrics.set_lane(is_on=True)

    @property
    def model_name(self) -> str:
        """The name of the model that the lane answers by."""
        return self._current.active.model.manifest.name

    def take_sample(self, version: int, pixels: bytes, is_uint8: bool, logits: bytes) -> None:
        """Pass an image and its logits on, unless its version was replaced meanwhile."""
        if self._answering is None or self._samples is None:
            return
        manifest = self._answering.model.manifest
        if manifest.version == version:
            image = np.frombuffer(pixels, np.uint8 if is_uint8 else np.float32)
            self._samples.observe(
                image.reshape(manifest.input_shape), np.frombuffer(logits, np.float32)
            )

    async def keep_updating(self) -> None:
        """Follow the replacements until it is cancelled."""
        await keep_running("lane", self._follow, self._metrics.count_failure)

    async def _follow(self) -> None:
        while True:
            await self._replaced.wait()
            self._replaced.clear()
            await self.update()
