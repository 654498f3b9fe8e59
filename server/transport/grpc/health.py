"""grpc.health.v1, the health check of gRPC."""

from collections.abc import AsyncIterator

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from server.errors import quote
from server.lifecycle.state import ServingState
from server.transport.grpc.ending import abort

Response = health_pb2.HealthCheckResponse
Context = grpc.aio.ServicerContext[health_pb2.HealthCheckRequest, Response]


class Health(health_pb2_grpc.HealthServicer):
    """grpc.health.v1 for the server ("") and each service by name.

    Unlike grpcio's own servicer it ends its watches, after their last NOT_SERVING,
    when the server is about to stop: a watcher would hold up the drain for ever.
    Not before: a client whose watch ends begins the next one at once.
    """

    def __init__(self, services: tuple[str, ...], state: ServingState) -> None:
        self._known = ("", *services)
        self._state = state

    def _status(self, service: str) -> int:
        if service not in self._known:
            return Response.SERVICE_UNKNOWN
        if self._state.is_draining:
            return Response.NOT_SERVING
        return Response.SERVING

    async def Check(  # noqa: N802 (the proto's name)
        self,
        request: health_pb2.HealthCheckRequest,
        context: Context,
    ) -> Response:
        """Return the status of a service; NOT_FOUND if it is not served."""
        status = self._status(request.service)
        if status == Response.SERVICE_UNKNOWN:
            known = ", ".join(repr(name) for name in self._known)
            text = f"no service {quote(request.service)}; health is known of {known}"
            await abort(context, grpc.StatusCode.NOT_FOUND, text)
        return Response(status=status)

    async def Watch(  # noqa: N802 (the proto's name)
        self,
        request: health_pb2.HealthCheckRequest,
        context: Context,
    ) -> AsyncIterator[Response]:
        """Yield the status of a service now and at its change."""
        status = self._status(request.service)
        yield Response(status=status)
        await self._state.wait_until_draining()
        if self._status(request.service) != status:
            yield Response(status=self._status(request.service))
        await self._state.wait_until_stopping()
