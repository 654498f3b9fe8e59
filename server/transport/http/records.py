"""Records of the calls over HTTP: made for every request, ended for those of a method."""

from collections.abc import Iterator
from contextvars import ContextVar

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.observability.calls import CallObserver
from server.observability.records import CallRecord
from server.observability.request_id import read_identity

RECORD = "forward.record"  # where the scope of a request has its record
# The record of the request that the running task answers, for what is not given its scope.
current_record: ContextVar[CallRecord] = ContextVar("current_record")
CANCELLED = 499  # the status of a request that its client closed, as nginx has it
# What a status says of a request that reached no method; Connect's own errors have these.
STATUSES = {
    401: "UNAUTHENTICATED",
    404: "NOT_FOUND",
    408: "DEADLINE_EXCEEDED",
    413: "RESOURCE_EXHAUSTED",
    429: "RESOURCE_EXHAUSTED",
    CANCELLED: "CANCELLED",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


def make_record(scope: Scope) -> CallRecord:
    """Return the record of a request, which its scope has from now on."""
    peer = ":".join(map(str, scope.get("client") or ()))
    record = scope[RECORD] = CallRecord("", "http", peer, *read_identity(_metadata(scope)))
    return record


def _metadata(scope: Scope) -> Iterator[tuple[str, str]]:
    for name, value in scope["headers"]:
        yield name.decode("latin-1"), value.decode("latin-1")


class RecordedCalls:
    """Puts the calls of a method on record.

    Args:
        app: answers them; its methods set the status of the record.
        method: the name of the method.
        observer: reports of the calls.
    """

    def __init__(self, app: ASGIApp, method: str, observer: CallObserver) -> None:
        self._app = app
        self._method = method
        self._observer = observer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        record: CallRecord = scope[RECORD]
        record.method = self._method
        self._observer.start(record)
        current_record.set(record)  # each request has a task of its own
        http_status = CANCELLED

        async def receive_counted() -> Message:
            message = await receive()
            record.request_bytes += len(message.get("body", b""))
            return message

        async def send_counted(message: Message) -> None:
            nonlocal http_status
            if message["type"] == "http.response.start":
                http_status = message["status"]
            record.response_bytes += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, receive_counted, send_counted)
        finally:
            self._observer.end(
                record, record.status or STATUSES.get(http_status, "INVALID_ARGUMENT")
            )
