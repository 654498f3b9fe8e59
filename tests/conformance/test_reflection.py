"""Server reflection: both versions, for clients that have no .proto, and streams left open."""

import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest

from tests.support.servers import RunningServer

PATH = "/grpc.reflection.{}.ServerReflection/ServerReflectionInfo"
GrpcCall: TypeAlias = Any  # the stubs have other types than the calls
CallDetails: TypeAlias = Any  # a named tuple, which the stubs do not say
THREADS = 40  # more than asyncio's own pool has on any machine


class ToVersion(grpc.StreamStreamClientInterceptor):
    """Sends the calls of grpcio-reflection's client, which knows v1alpha alone, to a version."""

    def __init__(self, version: str) -> None:
        self._path = PATH.format(version)

    def intercept_stream_stream(
        self,
        continuation: Callable[..., GrpcCall],
        client_call_details: CallDetails,
        request_iterator: Iterator[object],
    ) -> GrpcCall:
        return continuation(client_call_details._replace(method=self._path), request_iterator)


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_each_version_describes_every_service_and_itself(
    served: RunningServer, version: str
) -> None:
    with grpc.insecure_channel(served.address) as channel:
        database = ProtoReflectionDescriptorDatabase(
            grpc.intercept_channel(channel, ToVersion(version))
        )
        services = database.get_services()
        assert f"grpc.reflection.{version}.ServerReflection" in services
        pool = DescriptorPool(database)
        for service in services:
            described = pool.FindServiceByName(service)
            assert described.methods
            assert all(method.input_type.file for method in described.methods)


def test_the_versions_differ_in_their_package_only(served: RunningServer) -> None:
    with grpc.insecure_channel(served.address) as channel:
        pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
        new, old = (
            pool.FindMessageTypeByName(f"grpc.reflection.{version}.ServerReflectionResponse").file
            for version in ("v1", "v1alpha")
        )
    assert new.name == "grpc/reflection/v1/reflection.proto"
    assert {
        name: [(field.name, field.number, field.type) for field in message.fields]
        for name, message in new.message_types_by_name.items()
    } == {
        name: [(field.name, field.number, field.type) for field in message.fields]
        for name, message in old.message_types_by_name.items()
    }


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_open_streams_leave_room_for_others(served: RunningServer, version: str) -> None:
    done = threading.Event()

    def requests() -> Iterator[bytes]:
        yield ServerReflectionRequest(list_services="").SerializeToString()
        done.wait(60)

    with grpc.insecure_channel(served.address) as channel:
        begin: Any = channel.stream_stream(PATH.format(version))
        streams = [begin(requests(), timeout=20) for _ in range(THREADS)]
        assert all(next(stream) for stream in streams)
        done.set()


def test_malformed_bytes_get_a_clear_error(served: RunningServer) -> None:
    with grpc.insecure_channel(served.address) as channel:
        begin: Any = channel.stream_stream(PATH.format("v1"))
        with pytest.raises(grpc.RpcError, match=r"expected a grpc\.reflection\.v1\.") as refused:
            next(begin(iter([b"\xff"]), timeout=20))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
