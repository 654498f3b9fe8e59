"""The bodies of requests: bounded before they are read, and in time."""

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.transport.http.refusals import header, refusal

BODY_SECONDS = 60.0  # a whole body has so long to arrive,
SILENCE_SECONDS = 10.0  # and each part of it so long
# A response may come before its request has been read. What is left of that is read for so long:
# HTTP/1 clients that still send would get a reset in the place of the response.
DISCARD_SECONDS = 1.0


class BoundedBody:
    """Gives an application the whole body of a request at once, if it is small enough.

    Args:
        app: the application.
        max_bytes: of a body, as it is sent.
    """

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        announced = header(scope, "content-length")
        if announced and int(announced) > self._max_bytes:  # its digits the parser has checked
            await self._refuse_size(scope, receive, send, f"{announced} bytes")
            return
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(BODY_SECONDS):
                while True:
                    async with asyncio.timeout(SILENCE_SECONDS):
                        message = await receive()
                    if message["type"] == "http.disconnect":
                        return  # nobody waits for a response
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    if size > self._max_bytes:
                        await self._refuse_size(scope, receive, send, "more")
                        return
                    if not message.get("more_body", False):
                        break
        except TimeoutError:
            text = (
                f"the body of the request did not arrive within {BODY_SECONDS:g} s, or nothing of "
                f"it came for {SILENCE_SECONDS:g} s; got {size} bytes"
            )
            await refusal(scope, 408, text, {"connection": "close"})(scope, receive, send)
            return
        whole: list[Message] = [
            {"type": "http.request", "body": b"".join(parts), "more_body": False}
        ]
        parts.clear()

        async def receive_whole() -> Message:
            return whole.pop() if whole else await receive()

        await self._app(scope, receive_whole, send)

    async def _refuse_size(self, scope: Scope, receive: Receive, send: Send, got: str) -> None:
        text = (
            f"expected a request body of at most {self._max_bytes} bytes, got {got}; send fewer "
            "images, or UINT8, or binary in the place of JSON"
        )
        await refusal(scope, 413, text, {"connection": "close"})(scope, receive, send)


async def discard(receive: Receive) -> None:
    """Read what is left of a body."""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            return
