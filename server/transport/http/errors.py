"""Errors of services as responses."""

from math import ceil

from starlette.responses import Response
from starlette.types import Scope

from server.errors import ServiceError
from server.transport.http.refusals import refusal

HTTP_STATUS = {
    "INVALID_ARGUMENT": 400,
    "UNAUTHENTICATED": 401,
    "NOT_FOUND": 404,
    "RESOURCE_EXHAUSTED": 429,
    "INTERNAL": 500,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}


def error_response(scope: Scope, error: ServiceError) -> Response:
    """Return the response that tells of an error, and when to try again if there is a time."""
    after = error.retry_seconds
    headers = {} if after is None else {"retry-after": str(ceil(after))}
    return refusal(scope, HTTP_STATUS[error.status], str(error), headers)
