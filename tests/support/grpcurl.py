"""Stands in for grpcurl where there is none: the words of the documentation, by server reflection.

`-plaintext`, `-cacert FILE`, `-H 'name: value'`, `-d JSON`, then the address, then `list`,
`describe SYMBOL` or a method.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import json_format
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)


def main() -> None:
    options = _options()
    with _channel(options) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        if options.words == ["list"]:
            print("\n".join(database.get_services()))
            return
        pool = DescriptorPool(database)
        if options.words[0] == "describe":
            print(_described(pool, options.words[1]))
            return
        print(json_format.MessageToJson(_called(channel, pool, options)))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("-plaintext", action="store_true")
    parser.add_argument("-cacert", type=Path)
    parser.add_argument("-H", dest="header")
    parser.add_argument("-d", dest="data", default="{}")
    parser.add_argument("address")
    parser.add_argument("words", nargs="+")
    return parser.parse_args()


def _channel(options: argparse.Namespace) -> grpc.Channel:
    if options.plaintext:
        channel = grpc.insecure_channel(options.address)
    else:
        credentials = grpc.ssl_channel_credentials(options.cacert.read_bytes())
        channel = grpc.secure_channel(options.address, credentials)
    if options.header is None:
        return channel
    name, _, value = options.header.partition(": ")
    return grpc.intercept_channel(channel, _Header(name, value))


class _Header(grpc.UnaryUnaryClientInterceptor, grpc.StreamStreamClientInterceptor):
    """Adds a header to each call."""

    def __init__(self, name: str, value: str) -> None:
        self._metadata = [(name, value)]

    def intercept_unary_unary(self, proceed: Any, details: Any, request: Any) -> Any:  # noqa: ANN401 (grpcio's types say no more)
        return proceed(details._replace(metadata=self._metadata), request)

    def intercept_stream_stream(self, proceed: Any, details: Any, requests: Any) -> Any:  # noqa: ANN401 (grpcio's types say no more)
        return proceed(details._replace(metadata=self._metadata), requests)


def _described(pool: DescriptorPool, symbol: str) -> str:
    service = pool.FindServiceByName(symbol)
    methods = [f"  rpc {each.name} ({each.input_type.full_name})" for each in service.methods]
    return "\n".join([f"{symbol} is a service:", *methods])


def _called(channel: grpc.Channel, pool: DescriptorPool, options: argparse.Namespace) -> Any:  # noqa: ANN401 (a message of a class made here)
    service, _, name = options.words[0].partition("/")
    method = pool.FindServiceByName(service).FindMethodByName(name)
    if method is None:
        sys.exit(f"service {service!r} does not include a method named {name!r}")
    request = json_format.Parse(options.data, GetMessageClass(method.input_type)())
    call: Any = channel.unary_unary(
        f"/{service}/{name}",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=GetMessageClass(method.output_type).FromString,
    )
    return call(request, timeout=20)


if __name__ == "__main__":
    main()
