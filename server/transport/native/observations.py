"""Calls that Python did not answer, as the records of those that it did."""

from collections.abc import Mapping
from typing import Any

from google.rpc import code_pb2

from server.observability.calls import CallObserver
from server.observability.records import CallRecord
from server.observability.runs import Run
from server.observability.traceparent import parse_traceparent

Fields = Mapping[str, Any]  # by their names in native/src/python/convert.rs


class Observations:
    """Reports of calls by what the extension tells of them.

    Those that shared a run are told together: they wait for the end of a turn.
    """

    def __init__(self, observer: CallObserver) -> None:
        self._observer = observer
        self._waiting: list[tuple[CallRecord, Fields]] = []

    def add(self, fields: Fields, model: str) -> None:
        """Take a call; `model` is the name of the one that the lane answers by."""
        observer = self._observer
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
            record.queue_seconds, record.run_seconds = (
                fields["queue_seconds"],
                fields["run_seconds"],
            )
            record.encode_seconds = fields["encode_seconds"]
        # The extension has chosen it for the log, or else for its trace.
        observer.sample(record, is_chosen=not fields["is_logged"])
        self._waiting.append((record, fields))

    def report(self) -> None:
        """Report of the calls that have come, in their order."""
        if not self._waiting:
            return
        waiting, self._waiting = self._waiting, []
        shared = self._join_runs(waiting)
        for record, fields in waiting:
            if record.observe_run is not None:
                for number, *_ in fields["runs"]:
                    record.observe_run(shared[number])
            self._observer.observe_lane(record, is_logged=fields["is_logged"])

    def _join_runs(self, waiting: list[tuple[CallRecord, Fields]]) -> Mapping[int, Run]:
        """Return the runs that the records had, by their numbers; give each its own.

        A stream has none: it may have had many.
        """
        shared = dict[int, Run]()
        is_unary = self._observer.metrics.calls.is_unary
        for record, fields in waiting:
            for number, started, seconds, requests, images in fields["runs"]:
                run = shared.get(number)
                if run is None:
                    run = Run("predict", started, seconds, requests, images, [])
                    shared[number] = run
                if record.span is not None:
                    run.callers.append(record.span)
                if is_unary(record.method):
                    record.run = run
                    record.encode_started = run.started + run.seconds
        return shared
