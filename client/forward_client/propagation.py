"""The metadata of a call: the token, the span that it is made in, and what the caller adds."""

import sys
from collections.abc import Callable, Iterable

Metadata = tuple[tuple[str, str], ...]
MetadataSource = Callable[[], Iterable[tuple[str, str]]]


def call_metadata(token: Metadata, more: MetadataSource | None) -> Callable[[], Metadata]:
    """Return what returns the metadata of a call: a token's, the current span's and more."""
    return lambda: (*token, *current_trace(), *(more() if more else ()))


def current_trace() -> Metadata:
    """Return the metadata that name the current span of OpenTelemetry; none without one.

    That is `traceparent` and whatever else OTEL_PROPAGATORS says.
    """
    # No span can be current where the program has not imported this. So it is no requirement of
    # the client, and costs those nothing who do not use it.
    if "opentelemetry.trace" not in sys.modules:
        return ()
    from opentelemetry import propagate  # noqa: PLC0415 (no requirement of the client)

    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return tuple((name.lower(), value) for name, value in carrier.items())
