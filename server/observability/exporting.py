"""What sends spans, by OpenTelemetry's SDK, which this module needs, and how many it has lost."""

from collections.abc import Sequence

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult


def open_exporter(protocol: str) -> SpanExporter:
    """Return what sends spans by a protocol, as OpenTelemetry's variables say.

    Raises:
        ValueError: the protocol is unknown.
    """
    # Either needs a library that the other does not.
    if protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc import trace_exporter as grpc_exporter  # noqa: PLC0415 (needs a library that HTTP does not)

        return grpc_exporter.OTLPSpanExporter()
    if protocol == "http/protobuf":
        from opentelemetry.exporter.otlp.proto.http import trace_exporter as http_exporter  # noqa: PLC0415 (needs a library that gRPC does not)

        return http_exporter.OTLPSpanExporter()
    raise ValueError(f"expected the protocol grpc or http/protobuf, got {protocol!r}")


class CountingExporter(SpanExporter):
    """Counts what the processor, in a thread of its own, gives to an exporter, and what that lost.

    The SDK does not tell how many spans it has dropped.
    """

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self.taken = self.failed = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send spans."""
        self.taken += len(spans)
        result = SpanExportResult.FAILURE
        try:
            result = self._exporter.export(spans)
        finally:
            if result is not SpanExportResult.SUCCESS:
                self.failed += len(spans)
        return result

    def shutdown(self) -> None:
        """Send no more."""
        self._exporter.shutdown()
