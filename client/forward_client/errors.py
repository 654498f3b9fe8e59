"""Errors of the client; that of a call has what the server said, readable."""

from collections.abc import Iterable
from typing import cast

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.message import DecodeError
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from forward.v1 import forward_pb2 as pb
from forward_client.proxy import Proxy

PLAIN_HINT = (
    "start one with 'make serve' in a checkout or with 'forward-server', or name a CA (--tls-ca) "
    "if it speaks TLS"
)
TLS_HINT = (
    "it must speak TLS with a certificate of the CA for this name (--tls-server-name), and take "
    "the client's own (--tls-cert) if it asks for one"
)

PROXY_HINT = "add the host to no_proxy to call it directly"


class CredentialsError(Exception):
    """A certificate, a key or a token that can't be used; the text names the file."""


class PictureError(Exception):
    """A file that can't be read as a picture or that shows nothing."""


class ArgumentError(Exception):
    """An argument of the command that this server or its model has no meaning for."""


class ForwardError(Exception):
    """A call that failed.

    Attributes:
        code: name of the gRPC status, for example "INVALID_ARGUMENT".
        violations: for INVALID_ARGUMENT, every error of the request as
            (path of the field, what was expected and what came).
        retry_seconds: for RESOURCE_EXHAUSTED of a full queue, how long to wait before a retry;
            otherwise None. The client does not retry by itself.
        request_id: the id of the request in the server's log, "" if the server gave none.
    """

    def __init__(
        self,
        code: str,
        message: str,
        violations: tuple[tuple[str, str], ...] = (),
        retry_seconds: float | None = None,
        request_id: str = "",
    ) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.violations = violations
        self.retry_seconds = retry_seconds
        self.request_id = request_id

    @classmethod
    def from_call(
        cls,
        error: grpc.RpcError,
        address: str,
        timeout: float,
        *,
        tls: bool,
        proxy: Proxy | None = None,
    ) -> "ForwardError":
        """Return the error of a call to a server at an address."""
        code: str = error.code().name
        message: str = error.details() or "the server gave no reason"
        status = _status(error)
        if status is None and code == "UNAVAILABLE":  # not from the server itself
            message = (
                f"no server answers at {address}{_via(proxy)}; {_hint(proxy, tls)} ({message})"
            )
        elif status is None and code == "DEADLINE_EXCEEDED":
            message = f"no response from {address}{_via(proxy)} within {timeout:g} s ({message})"
        return cls(code, message, *_details(status.details if status else ()))

    @classmethod
    def from_status(cls, status: pb.Status) -> "ForwardError":
        """Return the error of one request of a stream."""
        return cls(code_pb2.Code.Name(status.code), status.message, *_details(status.details))


def _via(proxy: Proxy | None) -> str:
    return f" through {proxy}" if proxy and proxy.is_usable else ""


def _hint(proxy: Proxy | None, tls: bool) -> str:
    if proxy and proxy.is_usable:
        return f"check that the proxy allows this address, or {PROXY_HINT}"
    hint = TLS_HINT if tls else PLAIN_HINT
    if proxy:
        return f"{hint}; {proxy} was not used: expected http://host:port, or {PROXY_HINT}"
    return hint


def _details(details: Iterable[Any]) -> tuple[tuple[tuple[str, str], ...], float | None, str]:
    """Return the violations, the seconds to retry and the id of the request of an error."""
    violations: tuple[tuple[str, str], ...] = ()
    retry_seconds, request_id = None, ""
    for detail in details:
        bad_request, retry = error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
        request = error_details_pb2.RequestInfo()
        if detail.Unpack(bad_request):
            violations = tuple((v.field, v.description) for v in bad_request.field_violations)
        elif detail.Unpack(retry):
            retry_seconds = retry.retry_delay.ToTimedelta().total_seconds()
        elif detail.Unpack(request):
            request_id = request.request_id
    return violations, retry_seconds, request_id


def _status(error: grpc.RpcError) -> status_pb2.Status | None:
    """Return the google.rpc.Status that the server sent along, or None."""
    try:
        # The error is the call itself, which the stubs do not declare.
        return rpc_status.from_call(cast("grpc.Call", error))
    except (DecodeError, ValueError):  # for example from a proxy: code and text are all there is
        return None
