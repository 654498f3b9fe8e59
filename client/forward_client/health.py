"""grpc.health.v1 without a package of its messages.

A request is one string of field 1, a response one enumerator of field 1, in bytes the same as the
wrappers of a string and of an int32.
"""

from collections.abc import Callable

import grpc
from google.protobuf.wrappers_pb2 import Int32Value, StringValue

HEALTH = ("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")


def health_check(channel: grpc.Channel) -> Callable[..., Int32Value]:
    """Return the RPC on a channel."""
    return channel.unary_unary(
        "/grpc.health.v1.Health/Check", StringValue.SerializeToString, Int32Value.FromString
    )


def health_request(service: str) -> StringValue:
    """Return the request for a service."""
    return StringValue(value=service)


def status_name(response: Int32Value) -> str:
    """Return the status of a response, "UNKNOWN" for one that this release does not know."""
    status = response.value
    return HEALTH[status] if 0 <= status < len(HEALTH) else HEALTH[0]
