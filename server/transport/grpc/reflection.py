"""Server reflection, v1 and v1alpha, for clients that do not have the .proto."""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.message import Message
from grpc_reflection.v1alpha import reflection, reflection_pb2

from server.api.methods import Service, StreamMethod, message_decoder
from server.context import CallContext
from server.errors import ServiceError

METHOD = "ServerReflectionInfo"
V1_FILE = "grpc/reflection/v1/reflection.proto"
ALPHA_PACKAGE, V1_PACKAGE = "grpc.reflection.v1alpha", "grpc.reflection.v1"


def _v1_service() -> ServiceDescriptor:
    """Return the service of v1, of which grpcio-reflection has the older v1alpha alone.

    The two differ in the name of the package and in nothing else.
    """
    described = FileDescriptorProto()
    reflection_pb2.DESCRIPTOR.CopyToProto(described)
    described.name, described.package = V1_FILE, V1_PACKAGE
    described.ClearField("options")  # v1alpha's: packages of Java and Go, and that it is deprecated
    for message in described.message_type:
        for field in message.field:
            if field.HasField("type_name"):
                field.type_name = field.type_name.replace(ALPHA_PACKAGE, V1_PACKAGE)
    for method in described.service[0].method:
        method.input_type = method.input_type.replace(ALPHA_PACKAGE, V1_PACKAGE)
        method.output_type = method.output_type.replace(ALPHA_PACKAGE, V1_PACKAGE)
    pool = descriptor_pool.Default()  # where it can be looked up, too
    pool.AddSerializedFile(described.SerializeToString())
    return pool.FindServiceByName(f"{V1_PACKAGE}.{described.service[0].name}")


REFLECTION_SERVICES = (
    _v1_service(),
    descriptor_pool.Default().FindServiceByName(reflection.SERVICE_NAME),
)


class ReflectionService:
    """Answers requests for the descriptors of services and messages; the same in both versions.

    grpcio-reflection's own servicer for asyncio finds the answers. It is not added to the server
    as it is: for a server that is not exactly grpcio's it runs each stream in a thread of a pool,
    which a stream that its client gives up never leaves.
    """

    def __init__(self, service_names: Sequence[str], service: ServiceDescriptor) -> None:
        self._servicer: Any = reflection.aio.ReflectionServicer(service_names)
        self._service = service
        method = service.methods_by_name[METHOD]
        self._request_type = message_factory.GetMessageClass(method.input_type)
        self._response_type = message_factory.GetMessageClass(method.output_type)

    def table(self) -> Service:
        """Return the methods, for the transport."""
        decode = message_decoder(self._request_type)
        method = StreamMethod(
            METHOD, self.server_reflection_info, decode, served_while_draining=True
        )
        return Service(self._service, (method,))

    async def server_reflection_info(
        self,
        requests: AsyncIterator[Message | ServiceError],
        context: CallContext,
    ) -> AsyncGenerator[Message, None]:
        """Yield the answer to each request, in order; bytes that are none end the stream."""
        async with aclosing(self._servicer.ServerReflectionInfo(_alpha(requests), None)) as found:
            async for answer in found:
                yield self._response_type.FromString(answer.SerializeToString())
                del answer  # it repeats the request, which is not to be held until the next


async def _alpha(
    requests: AsyncIterator[Message | ServiceError],
) -> AsyncGenerator[reflection_pb2.ServerReflectionRequest, None]:
    async for request in requests:
        if isinstance(request, ServiceError):
            try:
                raise request
            finally:
                del request  # else the error and this frame would hold each other
        alpha = reflection_pb2.ServerReflectionRequest.FromString(request.SerializeToString())
        del request
        yield alpha
        del alpha
