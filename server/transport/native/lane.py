"""The lane: Predict answered in the extension, by the current version, once it is proven equal."""

import asyncio
from dataclasses import asdict
from typing import Any

import structlog

from server.api.lane import lane_model
from server.limits import RequestLimits
from server.observability.metrics import ServerMetrics
from server.observability.supervision import keep_running
from server.repository.current import CurrentModel
from server.transport.native.extension import Extension
from server.transport.native.session import LaneUnavailableError, open_lane_session

log = structlog.get_logger()


class LaneUpdates:
    """Keeps the lane at the current version: off from a replacement until the next is proven.

    Args:
        module: of the extension.
        extension: its server.
        current: whose versions the lane follows.
        limits: of the services.
        threads: of a run.
    """

    def __init__(
        self,
        module: Any,  # noqa: ANN401 (a module without types)
        extension: Extension,
        current: CurrentModel,
        limits: RequestLimits,
        threads: int,
    ) -> None:
        self._module, self._extension, self._current = module, extension, current
        self._limits, self._threads = limits, threads
        self._replaced = asyncio.Event()
        current.add_replace_callback(self._switch_off)

    def _switch_off(self) -> None:
        # At once: no answer of the version before may come after the first of the next.
        self._extension.set_lane(None, {})
        self._replaced.set()

    async def update(self) -> None:
        """Switch the lane on for the current version, if it computes in it as the server does."""
        active = self._current.active
        try:
            session = await asyncio.to_thread(
                open_lane_session, self._module, active.model, self._threads, self._limits
            )
        except LaneUnavailableError as error:
            log.info("Predict takes the way through Python", reason=str(error))
            return
        if active is self._current.active:  # else it was replaced meanwhile, and another comes
            self._extension.set_lane(session, asdict(lane_model(active, self._limits)))

    async def keep_updating(self, metrics: ServerMetrics) -> None:
        """Follow the replacements until it is cancelled."""
        await keep_running("lane", self._follow, metrics.count_failure)

    async def _follow(self) -> None:
        while True:
            await self._replaced.wait()
            self._replaced.clear()
            await self.update()
