"""The gRPC port of Ray's proxies: `add_services` is given to Ray by its name.

Ray forwards the calls of any service to its replicas, by handlers that it puts in the place of
the generated ones. By themselves they lose what a call is: deadlines do not arrive, details of
errors and metadata get lost with a failed call, and failures have an empty message before them, so
that the retry policies of clients do not apply. So what Ray forwards here is the whole call.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, Never

import grpc
from grpc_health.v1 import health_pb2
from grpc_status import rpc_status

from deploy.ray.serve.answering import SERVICES
from deploy.ray.serve.calls import ForwardedCall, Metadata, parse_reply
from server.errors import MethodNotFoundError, quote, rich_status
from server.observability.request_id import REQUEST_ID, make_request_id, read_identity
from server.transport.grpc.server import HEALTH_SERVICE
from server.transport.grpc.server import SERVICES as NAMES

RAY_HEALTH = "/ray.serve.RayServeAPIService/Healthz"
HEALTH_KNOWN = ("", *NAMES)
WATCH_SECONDS = 1.0  # between looks at the health, for who watches it
UNAVAILABLE = "the cluster has no replica that can answer now, or lost it; call again"
# Of Ray's own status codes these say what they should; any other is of a replica that is gone.
KEPT_CODES = (
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
)

Context = grpc.aio.ServicerContext[Any, Any]
Handler = Any  # grpc.RpcMethodHandler, of which the stubs know the blocking form alone
log = logging.getLogger("ray.serve")


def add_services(_servicer: object, server: Any) -> None:  # noqa: ANN401 (Ray's own server)
    """Add the services of the server to the gRPC server of a proxy; Ray calls it."""
    health = _ray_handler(server, RAY_HEALTH)
    # Of what is added together Ray takes the first alone into its own hands.
    handlers = (ForwardedServices(), HealthHandlers(health), UnknownMethods())
    server.add_generic_rpc_handlers(handlers)


def _ray_handler(server: Any, method: str) -> Handler:  # noqa: ANN401 (as above)
    for handlers, *_ in server.generic_rpc_handlers:
        if found := handlers._method_handlers.get(method):
            return found
    raise RuntimeError(f"this Ray has no {method}; expected ray 2.60")


class ForwardedServices(grpc.GenericRpcHandler):
    """The methods of all services; each call is forwarded by the handler that Ray makes for it."""

    def __init__(self) -> None:
        # Ray puts its own handlers in the place of these, as in that of generated code.
        self._method_handlers: dict[str, Handler] = {
            f"/{service.full_name}/{method.name}": (
                grpc.stream_stream_rpc_method_handler(_placeholder)
                if method.client_streaming
                else grpc.unary_unary_rpc_method_handler(_placeholder)
            )
            for service in SERVICES
            for method in service.methods
        }

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Handler | None:
        """Return what forwards a call; None if it is of another service."""
        method = handler_call_details.method
        ray: Handler = self._method_handlers.get(method)
        if ray is None:
            return None
        forward = _Forwarding(method, ray)
        if ray.request_streaming:
            return grpc.stream_stream_rpc_method_handler(forward.stream)
        return grpc.unary_unary_rpc_method_handler(forward.unary)


def _placeholder(*_arguments: object) -> Never:
    raise NotImplementedError("Ray forwards the calls")


class _Forwarding:
    """Forwards the calls of a method by Ray's handler."""

    __slots__ = ("_method", "_ray")

    def __init__(self, method: str, ray: Handler) -> None:
        self._method, self._ray = method, ray

    async def unary(self, message: bytes, context: Context) -> bytes:
        """Forward a call of one request; return its response."""
        captured = _CapturedContext(context)
        data = await self._ray.unary_unary(self._call(message, context), captured)
        await captured.fail(self._method)
        response, status, trailing = parse_reply(data)
        if status is not None:
            await context.abort(*status)
        if trailing:
            context.set_trailing_metadata(trailing)
        return response or b""

    async def stream(
        self, requests: AsyncIterator[bytes], context: Context
    ) -> AsyncGenerator[bytes, None]:
        """Forward a stream; yield its responses."""
        captured = _CapturedContext(context)
        items = self._items(requests, context)
        async for data in self._ray.stream_stream(items, captured):
            message, status, trailing = parse_reply(data)
            if message is not None:
                yield message
            if status is not None and status[0] is not grpc.StatusCode.OK:
                await context.abort(*status)
            if trailing:
                context.set_trailing_metadata(trailing)
        await captured.fail(self._method)

    async def _items(
        self, requests: AsyncIterator[bytes], context: Context
    ) -> AsyncIterator[ForwardedCall | bytes]:
        yield self._call(b"", context)
        async for message in requests:
            yield message

    def _call(self, message: bytes, context: Context) -> ForwardedCall:
        metadata: Metadata = tuple(
            (key, value) for key, value in context.invocation_metadata() or ()
        )
        # None without a deadline, despite the stubs.
        seconds: float | None = context.time_remaining()
        return ForwardedCall(self._method, context.peer(), metadata, seconds, message)


class _CapturedContext:
    """grpcio's context as Ray sees it: it keeps the status for itself.

    What Ray sends beside a status is an empty message, after which no client would retry.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._code: grpc.StatusCode | None = None
        self._details = ""

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 (any attribute of the context)
        return getattr(self._context, name)

    def trailing_metadata(self) -> Metadata:
        """Return nothing: none is kept."""
        return ()

    def set_trailing_metadata(self, _metadata: Metadata) -> None:
        """Do not send metadata of Ray's: a replica's reply has those of the call."""

    def code(self) -> grpc.StatusCode | None:
        """Return the status code that was set."""
        return self._code

    def details(self) -> str:
        """Return the text that was set."""
        return self._details

    def set_code(self, code: grpc.StatusCode) -> None:
        """Keep a status code."""
        self._code = code

    def set_details(self, details: str) -> None:
        """Keep the text of a status."""
        self._details = details

    @property
    def is_ok(self) -> bool:
        """Tell if Ray reported no failure."""
        return self._code in {None, grpc.StatusCode.OK}

    async def fail(self, method: str) -> None:
        """End the call if Ray reported that no replica could answer it.

        Raises:
            AbortError: it did; it is grpcio's, and has to get there.
        """
        if self.is_ok or self._code is None:
            return
        if self._code in KEPT_CODES:
            await self._context.abort(self._code, self._details)
        log.warning("%s: %s: %s", method, self._code.name, self._details)
        await self._context.abort(grpc.StatusCode.UNAVAILABLE, UNAVAILABLE)


class UnknownMethods(grpc.GenericRpcHandler):
    """Takes every call that no other handler takes, and refuses it as the server does."""

    def service(self, _details: grpc.HandlerCallDetails) -> Handler:
        """Return what refuses a call."""
        # Of a stream, whatever the method is: no request is waited for.
        return grpc.stream_stream_rpc_method_handler(self._refuse)

    async def _refuse(self, _requests: object, context: Context) -> None:
        request_id, _ = read_identity(context.invocation_metadata() or ())
        request_id = request_id or make_request_id()
        rich = rpc_status.to_status(rich_status(MethodNotFoundError(), request_id))
        trailing = (*rich.trailing_metadata, (REQUEST_ID, request_id))
        await context.abort(rich.code, rich.details, trailing)


class HealthHandlers(grpc.GenericRpcHandler):
    """grpc.health.v1 of a proxy: it serves while Ray says that it can reach replicas."""

    def __init__(self, ray: Handler) -> None:
        self._ray = ray
        request, response = health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse
        codecs: Any = {
            "request_deserializer": request.FromString,
            "response_serializer": response.SerializeToString,
        }
        self._handlers: dict[str, Handler] = {
            f"/{HEALTH_SERVICE}/Check": grpc.unary_unary_rpc_method_handler(self._check, **codecs),
            f"/{HEALTH_SERVICE}/Watch": grpc.unary_stream_rpc_method_handler(self._watch, **codecs),
        }

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Handler | None:
        """Return what answers a call; None if it is of another service."""
        return self._handlers.get(handler_call_details.method)

    async def _status(self, service: str, context: Context) -> Any:  # noqa: ANN401 (of the enum)
        if service not in HEALTH_KNOWN:
            return health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        captured = _CapturedContext(context)
        await self._ray.unary_unary(b"", captured)
        serving = health_pb2.HealthCheckResponse.SERVING
        return serving if captured.is_ok else health_pb2.HealthCheckResponse.NOT_SERVING

    async def _check(
        self, request: health_pb2.HealthCheckRequest, context: Context
    ) -> health_pb2.HealthCheckResponse:
        status = await self._status(request.service, context)
        if status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN:
            known = ", ".join(repr(name) for name in HEALTH_KNOWN)
            text = f"no service {quote(request.service)}; health is known of {known}"
            await context.abort(grpc.StatusCode.NOT_FOUND, text)
        return health_pb2.HealthCheckResponse(status=status)

    async def _watch(
        self, request: health_pb2.HealthCheckRequest, context: Context
    ) -> AsyncGenerator[health_pb2.HealthCheckResponse, None]:
        last = None
        while True:
            status = await self._status(request.service, context)
            if status != last:
                yield health_pb2.HealthCheckResponse(status=status)
            last = status
            await asyncio.sleep(WATCH_SECONDS)
