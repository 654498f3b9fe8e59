"""Calls that Python did not answer, as the records of those that it did."""

from collections.abc import Mapping
from typing import Any

from google.rpc import code_pb2

from server.observability.calls import CallObserver, CallRecord
from server.observability.traceparent import parse_traceparent


def observe(fields: Mapping[str, Any], observer: CallObserver, model: str) -> None:
    """Report of a call by what the extension tells of it; native/src/python/convert.rs.

    Args:
        fields: by their names there.
        observer: gets the record.
        model: the name of the one that the lane answers by.
    """
    record = CallRecord(
        observer.metrics.calls.known(fields["method"]),
        "grpc",
        fields["peer"],
        fields["request_id"],
        parse_traceparent(fields["traceparent"] or ""),
    )
    record.started, record.seconds = fields["started"], fields["seconds"]
    record.status = code_pb2.Code.Name(fields["code"])
    record.request_bytes = fields["request_bytes"]
    record.response_bytes = fields["response_bytes"]
    if fields["images"]:
        record.batcher = "predict"
        record.asked((model, fields["model_version"], ""), fields["images"])
        record.queue_seconds, record.run_seconds = fields["queue_seconds"], fields["run_seconds"]
        record.encode_seconds = fields["encode_seconds"]
    observer.observe_lane(record, is_logged=fields["is_logged"])
