"""Errors with their gRPC status and google.rpc details, the same for every transport."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeVar

import structlog
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2

ErrorT = TypeVar("ErrorT", bound=BaseException)
# Why a call is refused, or is not computed in time.
Rejection = Literal[
    "queue_full",
    "comparisons_full",
    "draining",
    "unauthenticated",
    "deadline_exceeded",
    "invalid_argument",
    "not_found",
]

log = structlog.get_logger()

# A status travels in the trailers, of which gRPC lets through 8 KiB, its text and
# its details alike: what a client sent is cut, and so are the violations in all.
MAX_QUOTED = 80  # characters
MAX_VIOLATION_CHARACTERS = 2000


def quote(sent: str | Sequence[int]) -> str:
    """Return what a client sent, in ASCII and cut to a length that fits into a status."""
    text = ascii(sent[:MAX_QUOTED])
    if len(sent) <= MAX_QUOTED and len(text) <= MAX_QUOTED:
        return text
    return f"{text[:MAX_QUOTED]}... (length {len(sent)})"


class StartError(Exception):
    """The server can't start; the text says why and is meant for the operator."""


class NeedsRestartError(Exception):
    """A version that only a new process can serve; the text is meant for the operator."""


class ServiceError(Exception):
    """Base of the errors that a call may end with; the text is meant for the caller."""

    status: ClassVar[str]  # name of a grpc.StatusCode
    rejection: ClassVar[Rejection | None] = None  # where the status does not tell
    retry_seconds: float | None = None  # seconds after which there should be room

    def details(self) -> list[Message]:
        """Return the google.rpc messages that ride along."""
        return []


@dataclass(frozen=True)
class Violation:
    """What is wrong with one field of a request: its path, what was expected and what came."""

    field: str
    description: str


class InvalidArgumentError(ServiceError):
    """A request that is not right; every violation, as far as they fit into a status."""

    status = "INVALID_ARGUMENT"

    def __init__(self, violations: Sequence[Violation]) -> None:
        self.violations = _first_violations(violations)
        texts = (f"{violation.field}: {violation.description}" for violation in self.violations)
        super().__init__("; ".join(texts))

    def details(self) -> list[Message]:
        """Return a BadRequest with every violation."""
        field_violation = error_details_pb2.BadRequest.FieldViolation
        return [
            error_details_pb2.BadRequest(
                field_violations=[
                    field_violation(field=violation.field, description=violation.description)
                    for violation in self.violations
                ]
            )
        ]


def _first_violations(violations: Sequence[Violation]) -> tuple[Violation, ...]:
    """Return the first violations that fit into a status, and a last one that counts the rest."""
    characters = 0
    for index, violation in enumerate(violations):
        characters += len(violation.field) + len(violation.description)
        if index and characters > MAX_VIOLATION_CHARACTERS:
            rest = f"at least {len(violations) - index} more violations"
            return (*violations[:index], Violation("request", rest))
    return tuple(violations)


class UnauthenticatedError(ServiceError):
    """A call without a token that the server knows; the text never repeats what came."""

    status = "UNAUTHENTICATED"


class NotFoundError(ServiceError):
    """A model or version that is not served."""

    status = "NOT_FOUND"


def model_not_found(
    name: str, version: object, served: Sequence[str], served_version: int
) -> NotFoundError:
    """Return the error for a model or version that is not served; it names what is."""
    there = " and ".join(f"{each!r} version {served_version}" for each in served)
    return NotFoundError(
        f"model {quote(name)} version {version} is not served; this server has {there}"
    )


class _BusyError(ServiceError):
    """There is no room now; the text ends with when to retry."""

    status = "RESOURCE_EXHAUSTED"
    retry_seconds: float

    def __init__(self, text: str, retry_seconds: float) -> None:
        super().__init__(f"{text}; retry in {retry_seconds:.3f} s")
        self.retry_seconds = retry_seconds

    def details(self) -> list[Message]:
        """Return a RetryInfo with the time after which there should be room."""
        delay = Duration()
        delay.FromNanoseconds(round(self.retry_seconds * 1e9))
        return [error_details_pb2.RetryInfo(retry_delay=delay)]


class QueueFullError(_BusyError):
    """The queue is full."""

    rejection = "queue_full"

    def __init__(self, images: int, queued: int, limit: int, retry_seconds: float) -> None:
        text = f"the queue holds {queued} of at most {limit} images and has no room for"
        super().__init__(f"{text} {images} more", retry_seconds)


class TooManyComparisonsError(_BusyError):
    """As many comparisons run as the server allows."""

    rejection = "comparisons_full"

    def __init__(self, limit: int, retry_seconds: float) -> None:
        text = f"at most {limit} comparisons run at a time (--max-comparisons), and as many do"
        super().__init__(text, retry_seconds)


class DeadlineExceededError(ServiceError):
    """The caller's deadline passed before the run began; nothing was computed."""

    status = "DEADLINE_EXCEEDED"


class MethodNotFoundError(ServiceError):
    """A method that the server does not have; the text is that of gRPC itself."""

    status = "UNIMPLEMENTED"

    def __init__(self) -> None:
        super().__init__("Method not found!")


class UnavailableError(ServiceError):
    """What the call needs can't be used now."""

    status = "UNAVAILABLE"


class DrainingError(UnavailableError):
    """The server is shutting down."""

    rejection = "draining"


class InternalError(ServiceError):
    """Any unexpected error: the caller gets a request id, the cause is in the log alone."""

    status = "INTERNAL"


def without_frames(error: ErrorT) -> ErrorT:
    """Return an error without the frames that it was raised through.

    A frame may refer to what keeps the error, a future for instance: the two, and the request
    with them, would wait for the garbage collector.
    """
    error.__traceback__ = error.__cause__ = error.__context__ = None
    return error


def as_service_error(error: Exception, peer: str, request_id: str) -> ServiceError:
    """Return what a call ends with, without frames: the error itself, or an InternalError.

    The cause of an InternalError is logged, under the id of the request.
    """
    if isinstance(error, ServiceError):
        return without_frames(error)
    log.error("call failed", request_id=request_id, peer=peer, exc_info=error)
    without_frames(error)
    return InternalError(
        f"internal error; the server's log has the cause under request {request_id}"
    )


def rich_status(error: ServiceError, request_id: str = "") -> status_pb2.Status:
    """Return an error with its details as it travels, the id of the request among them."""
    status = status_pb2.Status(code=code_pb2.Code.Value(error.status), message=str(error))
    details = error.details()
    if request_id:
        details.append(error_details_pb2.RequestInfo(request_id=request_id))
    for detail in details:
        packed = Any()
        packed.Pack(detail)
        status.details.append(packed)
    return status
