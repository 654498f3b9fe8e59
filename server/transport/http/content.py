"""The content types of Connect and gRPC-Web, and what `curl -d` sends in their place."""

from starlette.types import ASGIApp, Receive, Scope, Send

from server.errors import quote
from server.transport.http.refusals import header, refusal

UNARY_TYPES = ("application/json", "application/proto")
STREAM_TYPES = ("application/connect+json", "application/connect+proto")
WEB_TYPES = ("application/grpc-web", "application/grpc-web+proto", "application/grpc-web+json")
FORM_TYPE = "application/x-www-form-urlencoded"
JSON_TYPE = (b"content-type", b"application/json")


class ContentTypes:
    """Lets a request of a method through if its content type is one of the protocol's.

    What `curl -d` sends without a header is taken as JSON.
    """

    def __init__(self, app: ASGIApp, *, is_stream: bool) -> None:
        self._app = app
        self._types = STREAM_TYPES if is_stream else UNARY_TYPES
        self._takes_forms = not is_stream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if text := _undecodable(scope):
            await refusal(scope, 400, text)(scope, receive, send)
            return
        sent = header(scope, "content-type") or ""
        content_type = sent.partition(";")[0].strip().lower()
        if self._takes_forms and is_curls_form(scope, content_type):
            others = [pair for pair in scope["headers"] if pair[0] != JSON_TYPE[0]]
            scope = {**scope, "headers": [*others, JSON_TYPE]}
        elif content_type not in (*self._types, *WEB_TYPES):
            got = quote(sent) if sent else "none"
            text = f"expected Content-Type {' or '.join(self._types)}, got {got}"
            if content_type.startswith("application/grpc"):
                text += "; gRPC has a port of its own (--grpc-port)"
            accepted = {"accept-post": ", ".join((*self._types, *WEB_TYPES))}
            await refusal(scope, 415, text, accepted)(scope, receive, send)
            return
        await self._app(scope, receive, send)


def is_curls_form(scope: Scope, content_type: str) -> bool:
    """Tell if a request has the type of `curl -d` without a header, and is of no page.

    A browser sends that type to any server, for any page, without asking the server first; but it
    names the page's origin.
    """
    return content_type == FORM_TYPE and header(scope, "origin") is None


def _undecodable(scope: Scope) -> str | None:
    """Return what is wrong with a header that connectrpc can't read, which takes all for UTF-8."""
    for name, value in scope["headers"]:
        try:
            name.decode(), value.decode()
        except UnicodeDecodeError:
            return f"expected headers in UTF-8, got {quote(name.decode('latin-1'))} in other bytes"
    return None
