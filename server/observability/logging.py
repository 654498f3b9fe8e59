"""The log: structured, on standard error. Logging never fails."""

import json
import logging
import sys
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

log = structlog.get_logger()


def configure_logs(level: str, log_format: str) -> None:
    """Log from `level` on, as "console" lines or "json" objects; "auto" chooses by terminal.

    What libraries log through the standard library goes the same way, from warnings on.
    """
    is_terminal = sys.stderr.isatty()
    console = log_format == "console" or (log_format == "auto" and is_terminal)
    renderers: list[Processor] = (
        [
            structlog.dev.ConsoleRenderer(
                colors=is_terminal, exception_formatter=structlog.dev.plain_traceback
            )
        ]
        if console
        else [
            structlog.processors.ExceptionRenderer(
                # Locals hold requests and their metadata.
                structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
            ),
            structlog.processors.JSONRenderer(_to_json),
        ]
    )
    least = logging.getLevelNamesMapping()[level.upper()]
    stamps: list[Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.MaybeTimeStamper(fmt="iso"),
    ]
    structlog.configure(
        processors=[_Rendering([*stamps, *renderers], is_json=not console)],
        wrapper_class=structlog.make_filtering_bound_logger(least),
        logger_factory=_LineLogger,
    )
    logging.basicConfig(handlers=[_Libraries()], level=max(least, logging.WARNING))


def writes_json() -> bool:
    """Tell if the log has JSON objects, by `configure_logs`."""
    first, *_ = structlog.get_config()["processors"]
    return isinstance(first, _Rendering) and first.is_json


def _to_json(event: EventDict, default: Callable[[Any], Any]) -> str:
    """Return an event as json.dumps does, which makes an encoder for each."""
    return _encoder(default).encode(event)


@cache
def _encoder(default: Callable[[Any], Any]) -> json.JSONEncoder:
    return json.JSONEncoder(default=default)


class _Rendering:
    """Renders an event; one that can't be rendered gives a line that says so."""

    def __init__(self, processors: Sequence[Processor], *, is_json: bool) -> None:
        self._processors = processors
        self.is_json = is_json

    def __call__(self, logger: WrappedLogger, level: str, event_dict: EventDict) -> str:
        event = event_dict.get("event")
        rendered = event_dict
        try:
            for process in self._processors:
                rendered = process(logger, level, rendered)  # type: ignore[assignment] # the last makes a text of it
        except Exception as error:  # noqa: BLE001 (a value's own repr may raise anything)
            failure = f"not rendered: {type(error).__name__}"
            return json.dumps({"event": str(event), "level": level, "log_failure": failure})
        return str(rendered)


class _LineLogger:
    """Writes lines to the current standard error, each in one piece and without a lock."""

    def __init__(self, *_arguments: object) -> None:
        """Take what structlog passes on to any logger."""

    def msg(self, line: str) -> None:
        """Write a line."""
        sys.stderr.write(f"{line}\n")

    debug = info = warning = error = exception = critical = msg


class _Libraries(logging.Handler):
    """Receives what asyncio, grpcio and other libraries log."""

    def emit(self, record: logging.LogRecord) -> None:
        """Log a record."""
        try:
            text = record.getMessage()
        except Exception:  # noqa: BLE001 (its arguments are anybody's)
            text = f"arguments that do not fit {record.msg!r}"
        report = log.error if record.levelno >= logging.ERROR else log.warning
        report(text, logger=record.name, exc_info=record.exc_info)
