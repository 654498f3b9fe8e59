"""A call whose frames or headers are wrong gets the same words of both transports."""

import gzip
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import h2.events
import pytest

from forward.v1 import forward_pb2 as pb
from forward_client.messages import tensor_of
from tests.support.faults import ONE, RawClient, grpc_port
from tests.support.servers import RunningServer, start_server
from tests.support.transports import extension

pytestmark = [
    pytest.mark.skipif(not extension()[0], reason=extension()[1]),
    pytest.mark.one_transport,  # each test asks both
]

MESSAGE = pb.PredictRequest(images=tensor_of(ONE)).SerializeToString()
GZIPPED = gzip.compress(MESSAGE)
CHUNK_BYTES = 16_000  # of a frame
# Of a response that is its status alone grpcio leaves it out; for OK it has an empty message.
OF_NO_ACCOUNT = {("grpc-accept-encoding", "identity, deflate, gzip"), ("grpc-message", "")}
ID = ("x-request-id", "a-request.of_1")

Headers = tuple[tuple[str, str], ...]


def framed(message: bytes, flag: int = 0, length: int | None = None) -> bytes:
    size = len(message) if length is None else length
    return bytes([flag]) + size.to_bytes(4) + message


class Sent(NamedTuple):
    """A call, without the headers that every call has."""

    data: bytes = framed(MESSAGE)
    headers: Headers = ()
    method: str = "Predict"
    ends: bool = True


def encoded(kind: str, message: bytes, flag: int = 1) -> Sent:
    return Sent(framed(message, flag), (("grpc-encoding", kind),))


def timed(*values: str) -> Sent:
    return Sent(headers=tuple(("grpc-timeout", value) for value in values))


SAME = {
    "right": Sent(),
    "two messages": Sent(framed(MESSAGE) * 2),
    "garbage after the message": Sent(framed(MESSAGE) + b"\x01"),
    "unknown method": Sent(method="Nothing"),
    "unknown service": Sent(method="/no.Service/Predict"),
    "path with a query": Sent(method="/forward.v1.ForwardService/Predict?x=1"),
    "path with an escape": Sent(method="/forward.v1.ForwardService/Pr%65dict"),
    "path with another slash": Sent(method="//forward.v1.ForwardService/Predict"),
    "stream of nothing": Sent(b"", method="PredictStream"),
    "compressed without a coding": Sent(framed(MESSAGE, 1)),
    "compressed by identity": encoded("identity", MESSAGE),
    "gzip": encoded("gzip", GZIPPED),
    "gzip of nothing": encoded("gzip", b""),
    "gzip announced only": encoded("gzip", MESSAGE, flag=0),
    "gzip in two members": encoded("gzip", gzip.compress(MESSAGE[:9]) + gzip.compress(MESSAGE[9:])),
    "gzip and garbage": encoded("gzip", GZIPPED + b"xyz"),
    "gzip cut off": encoded("gzip", GZIPPED[:-9]),
    "gzip that is none": encoded("gzip", MESSAGE),
    "gzip that is zlib": encoded("gzip", zlib.compress(MESSAGE)),
    "deflate": encoded("deflate", zlib.compress(MESSAGE)),
    "deflate without zlib": encoded("deflate", zlib.compress(MESSAGE)[2:-4]),
    "gzip bomb": encoded("gzip", gzip.compress(bytes(8_000_000))),
    "coding unknown": encoded("snappy", MESSAGE),
    "coding in capitals": encoded("GZIP", GZIPPED),
    "too large": Sent(framed(b"", length=2**32 - 1)),
    "too large and not ended": Sent(framed(b"", length=2**31), ends=False),
    "too large of a stream": Sent(framed(b"", length=2**31), method="PredictStream"),
    "timeout of nothing": timed("0m"),
    "timeout in words": timed("abc"),
    "timeout below 0": timed("-5S"),
    "timeout without a unit": timed("100"),
    "timeout of nine digits": timed("123456789S"),
    "timeout with spaces": timed(" 10 S"),
    "timeout for ever": timed("99999999999999999999S"),
    "two timeouts": timed("0S", "10S"),
    "late before its message": Sent(b"", (("grpc-timeout", "300m"),), ends=False),
    "late stream": Sent(b"", (("grpc-timeout", "300m"),), method="PredictStream", ends=False),
    "binary metadata": Sent(headers=(("x-bin", "AAE="), ("x-bin", "AAE"))),
    "binary metadata that are none": Sent(headers=(("x-bin", "!!!"),)),
    "metadata with grpc's prefix": Sent(headers=(("grpc-status", "3"),)),
}
# Where grpcio answers nothing at all, or takes a frame for what it is not.
BY_NATIVE = {
    "no message": (Sent(b""), "12", "expected one request, got none"),
    "half a prefix": (Sent(b"\0\0\0"), "13", "the stream ended within a message"),
    "half a message": (Sent(framed(MESSAGE)[:99]), "13", "the stream ended within a message"),
    "unknown flag": (
        Sent(framed(MESSAGE, 2)),
        "13",
        "expected a message's compression flag 0 or 1, got 2",
    ),
    "no message of a watch": (
        Sent(b"", method="/grpc.health.v1.Health/Watch"),
        "12",
        "expected one request, got none",
    ),
}


def response_to(server: RunningServer, sent: Sent) -> dict[str, Any]:
    """Return what a call gets: its headers and trailers as one, its data, whether it was reset."""
    with RawClient(grpc_port(server)) as client:
        stream = client.open_call(sent.method, (*sent.headers, ID))
        for start in range(0, len(sent.data), CHUNK_BYTES):
            client.http.send_data(stream, sent.data[start : start + CHUNK_BYTES])
            client.flush()
        if sent.ends:
            client.http.end_stream(stream)
            client.flush()
        seen = client.events_until(h2.events.StreamEnded)
    headers = [
        (str(key), str(value))
        for event in seen
        if isinstance(event, h2.events.ResponseReceived | h2.events.TrailersReceived)
        for key, value in event.headers or ()
    ]
    data = (event.data or b"" for event in seen if isinstance(event, h2.events.DataReceived))
    kept = sorted(each for each in headers if each not in OF_NO_ACCOUNT)
    return {"headers": kept, "data": b"".join(data)}


@pytest.fixture(scope="module")
def both() -> Iterator[Sequence[RunningServer]]:
    # Not the shared servers: gRPC's own lines about this get into the log, and are no JSON.
    with (
        start_server("--transport", "python") as one,
        start_server("--transport", "native") as other,
    ):
        yield one, other


@pytest.mark.parametrize("name", SAME)
def test_both_transports_answer_a_call_alike(both: Sequence[RunningServer], name: str) -> None:
    one, other = (response_to(server, SAME[name]) for server in both)
    assert one["headers"]
    assert ID in other["headers"]
    for response in (one, other):  # grpcio's core, which refuses some by itself, returns no id
        response["headers"] = [each for each in response["headers"] if each != ID]
    assert other == one


@pytest.mark.parametrize("name", BY_NATIVE)
def test_the_native_transport_answers_where_grpcio_waits(
    both: Sequence[RunningServer], name: str
) -> None:
    sent, code, text = BY_NATIVE[name]
    headers = dict(response_to(both[1], sent)["headers"])
    assert (headers["grpc-status"], headers["grpc-message"]) == (code, text)
    assert headers[ID[0]] == ID[1]
