"""Responses to requests that reach no method, in the form that their path's protocol has."""

from starlette.datastructures import Headers
from starlette.responses import JSONResponse, Response
from starlette.types import Scope

CONNECT_PREFIX = "/forward."  # the paths of packages forward.*: errors as the Connect protocol has
# https://connectrpc.com/docs/protocol#http-to-error-code, and what has no number of its own.
CONNECT_CODES = {
    400: "invalid_argument",
    401: "unauthenticated",
    404: "unimplemented",
    405: "unimplemented",
    408: "deadline_exceeded",
    413: "resource_exhausted",
    415: "invalid_argument",
    500: "internal",
}


def refusal(
    scope: Scope, status: int, text: str, headers: dict[str, str] | None = None
) -> Response:
    """Return an error; its text is meant for the caller."""
    if scope["path"].startswith(CONNECT_PREFIX):
        body = {"code": CONNECT_CODES[status], "message": text}
    else:
        body = {"error": text}
    return JSONResponse(body, status, headers)


def header(scope: Scope, name: str) -> str | None:
    """Return a header of a request, or None."""
    return Headers(scope=scope).get(name)
