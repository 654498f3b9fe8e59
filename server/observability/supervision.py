"""Background tasks: a failure is logged and counted, and the task is started again."""

import asyncio
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any, Literal, get_args

import structlog

# The background tasks, and the other places of failures that end no call.
Task = Literal["reload", "retire", "lane", "files", "metrics", "event_loop", "thread", "destructor"]
TASKS: tuple[Task, ...] = get_args(Task)
CountFailure = Callable[[Task], None]

FIRST_PAUSE_SECONDS, MAX_PAUSE_SECONDS = 1.0, 60.0

log = structlog.get_logger()


class Restarts:
    """The wait before the next start: longer each time, until a task has run for a minute."""

    def __init__(self) -> None:
        self._seconds = FIRST_PAUSE_SECONDS
        self._began = time.monotonic()

    def pause_seconds(self) -> float:
        """Return the pause after what began when the last pause was over."""
        now = time.monotonic()
        if now - self._began > MAX_PAUSE_SECONDS:
            self._seconds = FIRST_PAUSE_SECONDS
        seconds = self._seconds
        self._seconds = min(2 * seconds, MAX_PAUSE_SECONDS)
        self._began = now + seconds
        return seconds


async def keep_running(task: Task, run: Callable[[], Awaitable[None]], count: CountFailure) -> None:
    """Run until it returns or is cancelled; start it again after a failure."""
    restarts = Restarts()
    while True:
        try:
            return await run()
        except Exception as error:  # noqa: BLE001 (whatever it is, it is started again)
            await asyncio.sleep(_failed(task, error, count, restarts))


def keep_thread_running(task: Task, run: Callable[[], None], count: CountFailure) -> None:
    """Run in a daemon thread until it returns; start it again after a failure."""

    def keep() -> None:
        restarts = Restarts()
        while True:
            try:
                return run()
            except BaseException as error:  # noqa: BLE001 (as above; nobody else would see it)
                time.sleep(_failed(task, error, count, restarts))

    threading.Thread(target=keep, name=f"forward-{task}", daemon=True).start()


def _failed(task: Task, error: BaseException, count: CountFailure, restarts: Restarts) -> float:
    """Count and log; return the seconds to wait."""
    seconds = restarts.pause_seconds()
    count(task)
    log.error("background task failed", task=task, restart_seconds=seconds, exc_info=error)
    return seconds


def report_unhandled_failures(count: CountFailure) -> None:
    """Count and log failures in this process that no call and no task would report."""

    def in_loop(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        count("event_loop")
        loop.default_exception_handler(context)  # logs it

    def in_thread(failure: threading.ExceptHookArgs) -> None:
        count("thread")
        name = failure.thread.name if failure.thread else None
        log.error("thread failed", thread=name, exc_info=failure.exc_value)

    def in_destructor(failure: "sys.UnraisableHookArgs") -> None:
        count("destructor")
        where = type(failure.object).__qualname__
        log.error("destructor failed", where=where, exc_info=failure.exc_value)

    asyncio.get_running_loop().set_exception_handler(in_loop)
    threading.excepthook = in_thread
    sys.unraisablehook = in_destructor
