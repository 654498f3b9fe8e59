"""Distributed tracing by OpenTelemetry, which is an extra: whether there is any.

It is configured by OpenTelemetry's own variables alone, OTEL_*. They are not settings of this
server: the SDK reads most of them itself, once, when `open_tracing` builds it at the start.
"""

from collections.abc import Mapping
from typing import Protocol

import structlog

from server.errors import StartError
from server.observability.metrics import SpanLoss
from server.observability.records import CallRecord

EXTRA = "forward-server[otel]"
ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
EXPORTER, DISABLED = "OTEL_TRACES_EXPORTER", "OTEL_SDK_DISABLED"
SAMPLER, SAMPLER_ARGUMENT = "OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG"
QUEUE_SIZE, DEFAULT_QUEUE_SIZE = "OTEL_BSP_MAX_QUEUE_SIZE", "2048"
OTLP, NONE = "otlp", "none"

log = structlog.get_logger()


class CallTracer(Protocol):
    """What makes spans of calls, and of their runs."""

    @property
    def root_share(self) -> float:
        """The share of the calls without a caller's span that are traced."""

    def sample(self, record: CallRecord, *, is_chosen: bool = False) -> None:
        """Give a call a span, if it is traced, and what is told of its runs.

        `is_chosen`: that share has been taken.
        """

    def end(self, record: CallRecord) -> None:
        """Take a call that has ended."""

    def dropped(self, reason: SpanLoss) -> int:
        """Return how many spans their receiver did not get; any thread may ask."""

    async def close(self) -> None:
        """Send what waits, if the receiver takes it in a moment."""


def open_tracing(environment: Mapping[str, str]) -> CallTracer | None:
    """Return what makes spans of calls; None, and nothing is imported, if nobody is to get them.

    Raises:
        StartError: a variable of OpenTelemetry has a value that can't be used.
    """
    endpoint = _first(environment, ENDPOINTS)
    if endpoint is None or environment.get(DISABLED, "").strip().lower() == "true":
        return None
    exporter = environment.get(EXPORTER, "").strip() or OTLP
    if exporter == NONE:
        return None
    if exporter != OTLP:
        raise StartError(f"{EXPORTER}: expected {OTLP} or {NONE}, got {exporter!r}")
    protocol = _first(environment, PROTOCOLS) or "grpc"
    try:
        from server.observability.exporting import open_exporter  # noqa: PLC0415 (an extra)
        from server.observability.spans import Tracer  # noqa: PLC0415 (an extra)

        max_waiting = int(_first(environment, (QUEUE_SIZE,)) or DEFAULT_QUEUE_SIZE)
        tracer = Tracer(open_exporter(protocol), _root_share(environment), max_waiting)
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("opentelemetry"):
            raise
        log.warning(
            f"no spans are sent: OpenTelemetry is not installed; pip install '{EXTRA}'",
            endpoint=endpoint,
        )
        return None
    except (OSError, ValueError) as error:  # say, a file of certificates that is not there
        raise StartError(f"OpenTelemetry's variables OTEL_* are wrong: {error}") from error
    log.info("spans are sent", endpoint=endpoint, protocol=protocol, sampler=tracer.sampler)
    return tracer


def _root_share(environment: Mapping[str, str]) -> float:
    """Return the share of the calls without a caller's span that the sampler takes, at most.

    The native transport takes it, too, of the calls that it answers itself.
    """
    sampler = environment.get(SAMPLER, "").strip().lower().removeprefix("parentbased_")
    if sampler == "always_off":
        return 0.0
    if sampler != "traceidratio":
        return 1.0
    try:
        return float(environment.get(SAMPLER_ARGUMENT, ""))
    except ValueError:  # the SDK has said so
        return 1.0


def _first(environment: Mapping[str, str], names: tuple[str, ...]) -> str | None:
    """Return the first variable that is set; an empty one is not, as the standard has it."""
    return next((value for name in names if (value := environment.get(name, "").strip())), None)
