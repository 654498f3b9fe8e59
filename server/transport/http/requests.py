"""What every request passes first: the metrics, and the headers of every response."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.observability.http_metrics import FILES_ROUTE, HttpMetrics
from server.observability.request_id import REQUEST_ID
from server.transport.http.bodies import DISCARD_SECONDS, discard
from server.transport.http.records import CANCELLED, make_record

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data: blob:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
SECURITY_HEADERS = {
    "content-security-policy": POLICY,
    "cross-origin-opener-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
NO_CACHE = "no-cache"  # a browser asks each time; an unchanged file is not sent again


class Requests:
    """Answers every request, whatever becomes of it.

    Args:
        app: the routes.
        labels: the route that a request is counted by, by the endpoint that answered it.
        metrics: counts the requests.
        is_draining: tells if connections are to end after their response.
    """

    def __init__(
        self,
        app: ASGIApp,
        labels: Mapping[object, str],
        metrics: HttpMetrics,
        is_draining: Callable[[], bool],
    ) -> None:
        self._app = app
        self._labels = labels
        self._metrics = metrics
        self._is_draining = is_draining

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close"})  # an error, for nothing was accepted
            return
        started = time.perf_counter()
        request_id = make_record(scope).request_id
        response = _Response(scope, receive, send, request_id, closes=self._is_draining())
        try:
            with contextlib.suppress(Exception):  # the routes have logged and answered it
                await self._app(scope, response.receive, response.send)
        finally:
            route = self._labels.get(scope.get("endpoint"), FILES_ROUTE)
            self._metrics.observe(route, response.status, started)
            response.end()


class _Response:
    """The response to a request: what is sent, and what is left of the request's body."""

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, request_id: str, *, closes: bool
    ) -> None:
        self._receive = receive
        self._send = send
        self._request_id = request_id
        self._closes = closes and scope["http_version"].startswith("1")
        self._is_received = False
        self._discarding: asyncio.Task[None] | None = None
        self.status = CANCELLED
        self.has_started = False

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            self._is_received = True
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status, self.has_started = message["status"], True
            message.setdefault("headers", [])
            headers = MutableHeaders(raw=message["headers"])
            for name, value in SECURITY_HEADERS.items():
                headers.setdefault(name, value)
            headers.setdefault("cache-control", NO_CACHE)
            headers[REQUEST_ID] = self._request_id
            if self._closes:
                headers["connection"] = "close"
        elif not message.get("more_body", False) and not self._is_received:
            await self._discard_request()
        await self._send(message)

    async def _discard_request(self) -> None:
        """Read on while the response ends: the connection would wait for that for ever."""
        self._discarding = asyncio.create_task(discard(self.receive))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(self._discarding), DISCARD_SECONDS)

    def end(self) -> None:
        if self._discarding:
            self._discarding.cancel()
