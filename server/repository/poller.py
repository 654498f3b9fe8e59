"""Look for another version now and then and on SIGHUP, and let it take the place of the old."""

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import Callable
from typing import TypeVar

import structlog

from server.observability.metrics import ServerMetrics
from server.observability.supervision import Task, keep_running
from server.repository.current import ActiveModel, CurrentModel
from server.repository.versions import Failure, Look, ModelRepository

Result = TypeVar("Result")

IDLE_POLL_SECONDS = 0.05  # between looks whether an old version's last answer has left

log = structlog.get_logger()


class RepositoryPoller:
    """Keeps the host's active model at the version that should be served.

    A look, and what it loads, goes on in a thread beside the calls; the swap is one
    assignment on the event loop. One look at a time.
    """

    def __init__(
        self,
        host: CurrentModel,
        finder: ModelRepository[ActiveModel],
        metrics: ServerMetrics,
        interval_seconds: float,
        asked: asyncio.Event,
    ) -> None:
        self._host = host
        self._finder = finder
        self._metrics = metrics
        self._interval_seconds = interval_seconds or None  # None: only when asked
        self._has_failed = False  # then it looks as soon as it runs again
        self._asked = asked  # to look at once, or once more if a look goes on
        self._thread: threading.Thread | None = None
        self._retiring: set[asyncio.Task[None]] = set()

    async def keep_running(self) -> None:
        """Look again and again, until it is cancelled; whatever ends it but that is seen."""

        def count(task: Task) -> None:
            self._metrics.count_failure(task)
            self._show_failed("the search for versions failed; the server's log has the cause")

        await keep_running("reload", self.run, count)

    async def run(self) -> None:
        """Look again and again, until it is cancelled.

        Raises:
            Exception: a look failed in a way that nobody foresaw.
        """
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(
                    self._asked.wait(), 0 if self._has_failed else self._interval_seconds
                )
            self._has_failed = False
            asked = self._asked.is_set()
            self._asked.clear()
            await self._look(asked=asked)

    def close(self) -> None:
        """Let the running batches of the current version finish, after the last call."""
        for task in self._retiring:
            task.cancel()
        self._host.active.instance.close()

    def end_process_if_looking(self) -> None:
        """End the process, with status 0, if a look still goes on.

        It may hang in a read or be in the midst of a runtime's own code, beside which
        the interpreter can't end.
        """
        if self._thread is not None and self._thread.is_alive():
            os._exit(0)

    def _show_failed(self, text: str) -> None:
        self._has_failed = True
        served = self._host.active.model.manifest.version
        self._host.failure = Failure(served, text, time.time())
        self._metrics.observe_look(loaded=False, failed=1, is_well=False)

    async def _look(self, *, asked: bool) -> None:
        served, started = self._host.active.model.manifest, time.monotonic()
        look = await self._in_thread(lambda: self._finder.look(served, asked=asked))
        if look.loaded is not None:
            self._swap(look.loaded, time.monotonic() - started)
        self._host.failure = look.failure
        self._metrics.observe_look(
            loaded=look.loaded is not None, failed=look.failed, is_well=look.failure is None
        )

    async def _in_thread(self, work: Callable[[], Look[ActiveModel]]) -> Look[ActiveModel]:
        """Run in a daemon thread: no executor's, for which the end of the process would wait."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Look[ActiveModel]] = loop.create_future()

        def finish(result: Look[ActiveModel] | None, error: BaseException | None) -> None:
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

    def _swap(self, loaded: ActiveModel, seconds: float) -> None:
        before = self._host.swap(loaded)
        loaded.model.show(self._metrics)
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
    """Close a version when the last answer to its calls has left, so that its memory is freed."""
    while not before.instance.is_idle:  # noqa: ASYNC110 (to tell it would cost every call)
        await asyncio.sleep(IDLE_POLL_SECONDS)
    before.instance.close()
