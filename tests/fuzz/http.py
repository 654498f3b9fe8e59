"""Throw bytes at the HTTP port of a server: requests of every kind, broken ones, and others."""

import asyncio
import base64
import gzip
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress

from h2.config import H2Configuration
from h2.connection import H2Connection

from forward.v1 import forward_pb2 as pb
from tests.fuzz.mutations import Mutator
from tests.fuzz.run import Findings

CALLERS = 32
ANSWER_SECONDS = 1.0  # half of a request gets no answer; then the connection is closed
END_SECONDS = 60.0
PREFACE = b"PRI * HTTP/2.0\r\n\r\n"
STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})")
# What nobody may get, whatever they send: every other status tells them what is wrong.
FAULTS = {"500", "502", "503", "504"}


def seeds() -> dict[str, Sequence[bytes]]:
    """Return valid requests, by what they are for."""
    pixels = bytes(784)
    tensor = {"name": "images", "datatype": "UINT8", "shape": [1, 28, 28]}
    text = json.dumps({"id": "a", "inputs": [{**tensor, "data": [0] * 784}]}).encode()
    binary = {**tensor, "parameters": {"binary_data_size": 784}}
    wanted = [{"name": "relu", "parameters": {"binary_data": True}}]
    head = json.dumps({"inputs": [binary], "outputs": wanted}).encode()
    length = f"Inference-Header-Content-Length: {len(head)}"
    infer, packed = "/v2/models/mnist/infer", gzip.compress(text)
    image = pb.Tensor(dtype=pb.DATA_TYPE_UINT8, shape=[28, 28], data=pixels)
    predict = pb.PredictRequest(images=image).SerializeToString()
    encoded = base64.b64encode(pixels).decode()
    message = {"images": {"dtype": "DATA_TYPE_UINT8", "shape": [28, 28], "data": encoded}}
    method = "/forward.v1.ForwardService/{}".format
    return {
        "GET": [
            *map(_get, ("/", "/livez", "/readyz", "/v2", "/v2/openapi.json", "/v2/health/live")),
            *map(_get, ("/v2/models/mnist/versions/1", "/v2/models/mnist_trace/config")),
        ],
        "infer": [
            _post(infer, text),
            _post(infer, head + pixels, length),
            _post(infer, packed, "Content-Encoding: gzip", "Accept-Encoding: gzip"),
            _post("/v2/models/mnist_trace/versions/1/infer", pixels, f"{length[:33]} 0"),
            _chunked(infer, text),
        ],
        "Connect": [
            _post(method("Predict"), json.dumps(message).encode()),
            _post(method("Trace"), json.dumps(message).encode(), "Connect-Timeout-Ms: 9000"),
            _post(method("Predict"), predict, kind="application/proto"),
            _post(method("Predict"), b"\0" + len(predict).to_bytes(4) + predict, kind=WEB),
            _post(method("GetModel"), b"{}"),
        ],
        "HTTP/2": [_http2("/v2"), _http2("/livez")],
    }


WEB = "application/grpc-web+proto"


def _get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


def _post(path: str, body: bytes, *headers: str, kind: str = "application/json") -> bytes:
    lines = ("Host: localhost", f"Content-Type: {kind}", f"Content-Length: {len(body)}", *headers)
    return "\r\n".join((f"POST {path} HTTP/1.1", *lines, "", "")).encode() + body


def _chunked(path: str, body: bytes) -> bytes:
    lines = ("Host: localhost", "Content-Type: application/json", "Transfer-Encoding: chunked")
    head = "\r\n".join((f"POST {path} HTTP/1.1", *lines, "", "")).encode()
    chunks = (body[at : at + 500] for at in range(0, len(body), 500))
    sent = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
    return head + sent + b"0\r\n\r\n"


def _http2(path: str) -> bytes:
    connection = H2Connection(H2Configuration(client_side=True))
    connection.initiate_connection()
    headers = [(":method", "GET"), (":path", path), (":scheme", "http"), (":authority", "a")]
    connection.send_headers(1, headers, end_stream=True)
    return connection.data_to_send()


async def fuzz_http(address: str, number: int, inputs: int) -> Findings:
    """Send so many inputs, spread over the kinds, each on a connection of its own."""
    findings = Findings()
    for index, (kind, valid) in enumerate(seeds().items()):
        mutator = Mutator(number + index, valid)
        left = iter([mutator.next() for _ in range(inputs // len(seeds()))])
        async with asyncio.TaskGroup() as group:
            for _ in range(CALLERS):
                group.create_task(_call(address, kind, left, findings))
    return findings


async def _call(address: str, kind: str, left: Iterator[bytes], findings: Findings) -> None:
    for data in left:  # which the callers share
        status, fault = _judge(data, await _answer(address, data))
        findings.note(kind, status, data, fault)


async def _answer(address: str, data: bytes) -> bytes:
    """Return the start of what the server answers; nothing if it closes the connection."""
    host, port = address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        with suppress(ConnectionError):
            writer.write(data)
            with suppress(TimeoutError):
                return await asyncio.wait_for(reader.read(4096), ANSWER_SECONDS)
            writer.write_eof()
            return await asyncio.wait_for(reader.read(4096), END_SECONDS)
        return b""
    finally:
        writer.transport.abort()


def _judge(data: bytes, answer: bytes) -> tuple[str, str | None]:
    """Return the status of an answer, and what is wrong with it."""
    found = STATUS.match(answer)
    if found:
        status = found[1].decode()
        return status, f"status {status}" if status in FAULTS else None
    if not answer:
        return "closed", None
    is_http2 = data.startswith(PREFACE[:4]) or b"h2c" in data
    return "HTTP/2", None if is_http2 else f"no HTTP: {answer[:40]!r}"
