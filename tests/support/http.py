"""HTTP clients: connectrpc's own for the methods of forward.v1, and plain requests."""

import http.client
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from connectrpc.client import ConnectClientSync
from connectrpc.codec import Codec
from connectrpc.compat import google_protobuf_binary_codec, google_protobuf_json_codec
from connectrpc.method import IdempotencyLevel, MethodInfo, StreamType
from connectrpc.protocol import ProtocolType
from google.protobuf import message_factory
from google.protobuf.message import Message
from pyqwest import HTTPVersion, SyncClient, SyncHTTPTransport

from forward.v1 import forward_pb2 as pb

SERVICE = pb.DESCRIPTOR.services_by_name["ForwardService"]
CODECS = {"json": google_protobuf_json_codec, "proto": google_protobuf_binary_codec}
SECONDS = 60


@dataclass(frozen=True)
class Answer:
    """A response of HTTP/1.1."""

    status: int
    headers: Mapping[str, str]  # names in lower case
    body: bytes

    def json(self) -> Any:  # noqa: ANN401 (what it holds)
        return json.loads(self.body)


def request(
    address: str,
    path: str,
    body: bytes | Iterator[bytes] | None = None,
    *,
    method: str = "",
    **headers: str,
) -> Answer:
    """Return the response to a request; `_` in the names of headers is `-`."""
    connection = http.client.HTTPConnection(address, timeout=SECONDS)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        connection.request(method or ("GET" if body is None else "POST"), path, body, named)
        response = connection.getresponse()
        found = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, found, response.read())
    finally:
        connection.close()


def post(address: str, method: str, message: object, **headers: str) -> Answer:
    """Return the response of a method of forward.v1 to a message in JSON."""
    headers.setdefault("content_type", "application/json")
    body = message if isinstance(message, bytes) else json.dumps(message).encode()
    return request(address, f"/{SERVICE.full_name}/{method}", body, **headers)


def method_info(name: str, stream_type: StreamType = StreamType.UNARY) -> MethodInfo[Any, Any]:
    """Return what connectrpc's clients know of a method."""
    described = SERVICE.methods_by_name[name]
    return MethodInfo(
        name=name,
        service_name=SERVICE.full_name,
        input=message_factory.GetMessageClass(described.input_type),
        output=message_factory.GetMessageClass(described.output_type),
        idempotency_level=IdempotencyLevel.UNKNOWN,
        stream_type=stream_type,
    )


class ConnectCaller:
    """Calls the methods of forward.v1 by connectrpc's client."""

    def __init__(self, client: ConnectClientSync) -> None:
        self._client = client

    def call(
        self,
        name: str,
        message: Message,
        headers: Mapping[str, str] | None = None,
        timeout_ms: int | None = None,
    ) -> Any:  # noqa: ANN401 (the method's response)
        return self._client.execute_unary(
            request=message, method=method_info(name), headers=headers, timeout_ms=timeout_ms
        )

    def stream(self, name: str, messages: Sequence[Message]) -> list[Any]:
        responses = self._client.execute_bidi_stream(
            request=iter(messages), method=method_info(name, StreamType.BIDI_STREAM)
        )
        return list(responses)


@contextmanager
def connect_caller(
    url: str,
    *,
    codec: str = "proto",
    protocol: ProtocolType = ProtocolType.CONNECT,
    version: HTTPVersion = HTTPVersion.HTTP1,
    ca: bytes | None = None,
) -> Iterator[ConnectCaller]:
    """Call a server at a URL."""
    chosen: Codec[Any, Any] = CODECS[codec]()
    transport = SyncHTTPTransport(http_version=version, tls_ca_cert=ca)
    with (
        transport,
        ConnectClientSync(
            url, codec=chosen, protocol=protocol, http_client=SyncClient(transport)
        ) as client,
    ):
        yield ConnectCaller(client)
