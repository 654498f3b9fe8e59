"""Frames of HTTP/2 that a client may send as fast as it can, made by hand and without a library."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import islice

import numpy as np

from bench.load.h2load import frame
from forward.v1 import forward_pb2 as pb
from forward_client.messages import tensor_of

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS = range(5)
PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(6, 10)
END_STREAM, END_HEADERS = 1, 4
HEAD_BYTES = 9
ENHANCE_YOUR_CALM = 11
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
CANCEL = (8).to_bytes(4)


def http2_frame(kind: int, payload: bytes = b"", *, flags: int = 0, stream: int = 0) -> bytes:
    """Return a frame."""
    return len(payload).to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4) + payload


def _literal(name: str, value: str) -> bytes:
    """Return a header for HPACK, in no table: the block is the same for every call."""
    length_of_value = bytes((len(value),))
    return b"\0" + bytes((len(name),)) + name.encode() + length_of_value + value.encode()


def call_headers(method: str) -> bytes:
    """Return the header block of a call."""
    path = f"/forward.v1.ForwardService/{method}"
    headers = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "test"}
    headers |= {"content-type": "application/grpc", "te": "trailers"}
    return b"".join(_literal(*pair) for pair in headers.items())


PREDICT = call_headers("Predict")


def opened(stream: int, block: bytes = PREDICT) -> bytes:
    """Return the headers of a call whose messages are to come."""
    return http2_frame(HEADERS, block, flags=END_HEADERS, stream=stream)


def trace_message(images: int) -> bytes:
    """Return the message of a request whose response is large: every value of every stage."""
    pixels = tensor_of(np.zeros((images, 28, 28), np.uint8))
    request = pb.TraceRequest(images=pixels, detail=pb.DETAIL_FULL)
    return frame(request.SerializeToString())


@contextmanager
def opened_connection(port: int, window: int = 65_535) -> Iterator[socket.socket]:
    """Connect, with so large a window for each response and the largest for all of them.

    The server has told its own windows then: who sends more than those breaks the protocol.
    """
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        everything = http2_frame(WINDOW_UPDATE, (2**31 - 65_536).to_bytes(4))
        settings = http2_frame(SETTINGS, b"\0\4" + window.to_bytes(4))
        connection.sendall(PREFACE + settings + everything)
        received = b""
        while not any(kind == WINDOW_UPDATE for kind, _ in split(received)):
            received += connection.recv(65536)
        yield connection


def unread_traces(calls: int = 400, images: int = 16) -> Iterator[bytes]:
    """Yield calls whose responses are large; their requests fit into a queue and a window."""
    message, block = trace_message(images), call_headers("Trace")
    for stream in range(1, 2 * calls, 2):
        request = http2_frame(DATA, message, flags=END_STREAM, stream=stream)
        yield opened(stream, block) + request


def split(received: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the kind and the payload of each whole frame."""
    while len(received) >= HEAD_BYTES:
        end = HEAD_BYTES + int.from_bytes(received[:3])
        if end > len(received):
            return
        yield received[3], received[HEAD_BYTES:end]
        received = received[end:]


def pings() -> Iterator[bytes]:
    while True:
        yield http2_frame(PING, bytes(8))


def settings() -> Iterator[bytes]:
    """Yield settings that change the window of every call, and back."""
    while True:
        for window in (65_535, 65_536):
            yield http2_frame(SETTINGS, b"\0\4" + window.to_bytes(4))


def resets() -> Iterator[bytes]:
    """Yield calls that are reset at once (CVE-2023-44487)."""
    for stream in range(1, 2**31, 2):
        yield opened(stream) + http2_frame(RST_STREAM, CANCEL, stream=stream)


def reset_traces() -> Iterator[bytes]:
    """Yield the same with a whole request each: without a limit all would reach a handler."""
    message, block = trace_message(1), call_headers("Trace")
    for stream in range(1, 2**31, 2):
        request = http2_frame(DATA, message, flags=END_STREAM, stream=stream)
        yield opened(stream, block) + request + http2_frame(RST_STREAM, CANCEL, stream=stream)


def continuations() -> Iterator[bytes]:
    """Yield headers of one call that never end (CVE-2024-27316)."""
    yield http2_frame(HEADERS, PREDICT, stream=1)
    while True:
        yield http2_frame(CONTINUATION, stream=1)


def long_continuations() -> Iterator[bytes]:
    """Yield the same with a header of 1,000 bytes in each."""
    yield http2_frame(HEADERS, PREDICT, stream=1)
    while True:
        yield http2_frame(CONTINUATION, b"\0\1x\x7f\xe9\6" + b"v" * 1000, stream=1)


def empty_data() -> Iterator[bytes]:
    yield opened(1)
    while True:
        yield http2_frame(DATA, stream=1)


def window_updates() -> Iterator[bytes]:
    yield opened(1)
    while True:
        yield http2_frame(WINDOW_UPDATE, (1).to_bytes(4), stream=1)


def priorities() -> Iterator[bytes]:
    for stream in range(1, 2**31, 2):
        yield http2_frame(PRIORITY, bytes(5), stream=stream + 2)


def unknown_frames() -> Iterator[bytes]:
    while True:
        yield http2_frame(0xBE)


FLOODS = {
    each.__name__: each
    for each in (
        *(pings, settings, resets, reset_traces, continuations, long_continuations),
        *(empty_data, window_updates, priorities, unknown_frames),
    )
}


def send_flood(port: int, frames: Iterator[bytes], most: int) -> tuple[int, bytes]:
    """Send at most so many frames; return how many were taken, and what came until the end.

    The server is expected to close the connection; TimeoutError: it did not, in 20 s.
    """
    sent, received = 0, b""
    with opened_connection(port) as flooding:
        with suppress(BrokenPipeError, ConnectionResetError):
            while sent < most:
                chunk = list(islice(frames, 200))
                flooding.sendall(b"".join(chunk))
                sent += len(chunk)
        with suppress(ConnectionResetError):
            while data := flooding.recv(1 << 20):
                received += data
    return sent, received


def goaway_of(received: bytes) -> tuple[int, bytes] | None:
    """Return the error and the text of the GOAWAY among frames; None: there is none."""
    away = [payload for kind, payload in split(received) if kind == GOAWAY]
    return (int.from_bytes(away[-1][4:8]), away[-1][8:]) if away else None
