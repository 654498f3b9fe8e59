"""Polls the repository, at an interval and on SIGHUP, and replaces the current model."""

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import Callable

import structlog

from server.observability.metrics import ServerMetrics
from server.observability.supervision import Task, keep_running
from server.repository.current import ActiveModel, CurrentModel
from server.repository.versions import Failure, ModelRepository, PollResult

IDLE_POLL_SECONDS = 0.05  # between checks whether an old version is idle

log = structlog.get_logger()


class RepositoryPoller:
    """Keeps the current model at the version that should be served.

    A poll, and what it loads, runs in a thread beside the calls; the model is replaced by one
    assignment on the event loop. One poll at a time.
    """

    def __init__(
        self,
        current: CurrentModel,
        repository: ModelRepository[ActiveModel],
        metrics: ServerMetrics,
        interval_seconds: float,
        reload_requested: asyncio.Event,
    ) -> None:
        self._current = current
        self._repository = repository
        self._metrics = metrics
        self._interval_seconds = interval_seconds or None  # None: only when a reload is requested
        self._has_failed = False  # then it polls as soon as it runs again
        self._reload_requested = reload_requested  # poll at once, or again if a poll is running
        self._thread: threading.Thread | None = None
        self._retiring: set[asyncio.Task[None]] = set()

    async def keep_running(self) -> None:
        """Poll until it is cancelled; log and count what fails unexpectedly, and go on."""

        def count(task: Task) -> None:
            self._metrics.count_failure(task)
            self._show_failed("the search for versions failed; the server's log has the cause")

        await keep_running("reload", self.run, count)

    async def run(self) -> None:
        """Poll until it is cancelled.

        Raises:
            Exception: a poll failed unexpectedly.
        """
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(
                    self._reload_requested.wait(), 0 if self._has_failed else self._interval_seconds
                )
            self._has_failed = False
            force = self._reload_requested.is_set()
            self._reload_requested.clear()
            await self._poll(force=force)

    def close(self) -> None:
        """Let the running batches of the current version finish, after the last call."""
        for task in self._retiring:
            task.cancel()
        self._current.active.instance.close()

    def end_process_if_polling(self) -> None:
        """End the process, with status 0, if a poll is still running.

        It may hang in a read or in a runtime's own code, which the interpreter would wait for
        at its end.
        """
        if self._thread is not None and self._thread.is_alive():
            os._exit(0)

    def _show_failed(self, text: str) -> None:
        self._has_failed = True
        served = self._current.active.model.manifest.version
        self._current.failure = Failure(served, text, time.time())
        self._metrics.model.record_poll(loaded=False, failed=1, is_well=False)

    async def _poll(self, *, force: bool) -> None:
        served, started = self._current.active.model.manifest, time.monotonic()
        result = await self._in_thread(lambda: self._repository.poll(served, force=force))
        if result.loaded is not None:
            self._replace(result.loaded, time.monotonic() - started)
        self._current.failure = result.failure
        self._metrics.model.record_poll(
            loaded=result.loaded is not None, failed=result.failed, is_well=result.failure is None
        )

    async def _in_thread(
        self, work: Callable[[], PollResult[ActiveModel]]
    ) -> PollResult[ActiveModel]:
        """Run in a daemon thread: no executor's, for which the end of the process would wait."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[PollResult[ActiveModel]] = loop.create_future()

        def finish(result: PollResult[ActiveModel] | None, error: BaseException | None) -> None:
            if done.done():
                return  # cancelled
            if error is not None:
                done.set_exception(error)
            elif result is not None:
                done.set_result(result)

        def run() -> None:
            result, failure = None, None
            try:
                result = work()
            except BaseException as error:  # noqa: BLE001 (it goes to who waits)
                failure = error
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(finish, result, failure)

        self._thread = threading.Thread(target=run, name="forward-reload", daemon=True)
        self._thread.start()
        return await done

    def _replace(self, loaded: ActiveModel, seconds: float) -> None:
        before = self._current.replace(loaded)
        loaded.model.publish_info(self._metrics)
        manifest = loaded.model.manifest
        log.info(
            "reloaded",
            model=manifest.name,
            version=manifest.version,
            sha256=manifest.sha256,
            before=before.model.manifest.version,
            seconds=round(seconds, 3),
        )
        task = asyncio.create_task(_retire(before))
        self._retiring.add(task)
        task.add_done_callback(self._retired)

    def _retired(self, task: asyncio.Task[None]) -> None:
        self._retiring.discard(task)
        if not task.cancelled() and (error := task.exception()):
            self._metrics.count_failure("retire")
            log.error("an old version stays in memory", exc_info=error)


async def _retire(before: ActiveModel) -> None:
    """Close a version when the last response to its calls has been sent, to free its memory."""
    while not before.instance.is_idle:  # noqa: ASYNC110 (an event would cost every call)
        await asyncio.sleep(IDLE_POLL_SECONDS)
    before.instance.close()
