"""Health, and the way from a signal to the end without losing a call."""

import asyncio
import signal
from collections.abc import AsyncIterator

import grpc
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc

log = structlog.get_logger()

Response = health_pb2.HealthCheckResponse
Context = grpc.aio.ServicerContext[health_pb2.HealthCheckRequest, Response]


class Health(health_pb2_grpc.HealthServicer):
    """grpc.health.v1 for the server ("") and each service by name.

    Unlike grpcio's own servicer it ends its watches when the server drains,
    after their last NOT_SERVING: a watcher would hold up the drain for ever.
    """

    def __init__(self, services: tuple[str, ...]) -> None:
        self._known = ("", *services)
        self._draining = asyncio.Event()

    def drain(self) -> None:
        """Report NOT_SERVING from now on."""
        self._draining.set()

    def _status(self, service: str) -> int:
        if service not in self._known:
            return Response.SERVICE_UNKNOWN
        if self._draining.is_set():
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
            text = f"no service {request.service!r}; health is known of {known}"
            await context.abort(grpc.StatusCode.NOT_FOUND, text)
        return Response(status=status)

    async def Watch(  # noqa: N802 (the proto's name)
        self,
        request: health_pb2.HealthCheckRequest,
        context: Context,  # noqa: ARG002 (the signature of a call)
    ) -> AsyncIterator[Response]:
        """Yield the status of a service now and at its change."""
        status = self._status(request.service)
        yield Response(status=status)
        await self._draining.wait()
        if self._status(request.service) != status:
            yield Response(status=self._status(request.service))


async def stop_signal() -> str:
    """Wait for SIGTERM or SIGINT; return its name. A second one then ends the process at once."""
    loop = asyncio.get_running_loop()
    received: asyncio.Future[str] = loop.create_future()
    watched = (signal.SIGTERM, signal.SIGINT)

    def receive(name: str) -> None:
        if not received.done():
            received.set_result(name)

    for number in watched:
        loop.add_signal_handler(number, receive, number.name)
    try:
        return await received
    finally:
        for number in watched:
            loop.remove_signal_handler(number)


async def drain(server: grpc.aio.Server, health: Health, timeout_seconds: float) -> None:
    """Report NOT_SERVING, refuse new calls with UNAVAILABLE, let running calls finish."""
    health.drain()
    await server.stop(timeout_seconds)
