"""One replica of the application: the services of the server, batching and all, in a process."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from functools import partial
from typing import Any

import ray
import structlog
from ray import serve
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deploy.ray.serve.answering import STREAM_METHODS, UNARY_METHODS, Answering
from deploy.ray.serve.calls import ForwardedCall, Reply
from deploy.ray.serve.config import RayServeSettings
from deploy.ray.serve.discovery import REPORT_SECONDS, Target, report
from deploy.ray.serve.scaling import QUEUE_IMAGES
from server.addresses import is_wildcard
from server.app import tune_garbage_collection
from server.observability.logging import configure_logs
from server.observability.metrics_http import serve_metrics
from server.observability.request_id import REQUEST_ID
from server.serving import Serving, open_serving
from server.transport.grpc.auth import TokenInterceptor
from server.transport.grpc.server import service_handlers
from server.transport.http.app import HttpOptions, build_app

log = structlog.get_logger()


@serve.ingress()
class ForwardReplica:
    """What Ray Serve runs in each replica: the server without transports of its own."""

    async def __init__(self, settings: RayServeSettings) -> None:  # type: ignore[misc] # Ray awaits it
        configure_logs(settings.log_level, settings.log_format)
        self._serving = serving = open_serving(settings, asyncio.Event())
        serving.metrics.set_transport("ray")
        handlers = service_handlers(serving.services, serving.observer, serving.gate, serving.state)
        tokens = serving.security.tokens
        interceptors = [TokenInterceptor(tokens, (), serving.observer)] if tokens else []
        limit = serving.loader.max_receive_bytes
        self._answering = Answering(handlers, interceptors, limit)
        self._app = _http_app(serving, settings)
        self._target = _serve_metrics(serving, settings)
        tune_garbage_collection()
        self._beside = [
            asyncio.create_task(serving.poller.keep_running()),
            asyncio.create_task(self._keep_reporting()),
        ]
        manifest = serving.current.active.model.manifest
        log.info(
            "replica ready",
            model=manifest.name,
            version=manifest.version,
            replica=self._target.replica,
            metrics=self._target.address,
        )

    def __serve_build_asgi_app__(self) -> ASGIApp:
        """Return what answers HTTP."""
        return self._app

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Return how many images wait or run: what autoscaling goes by."""
        return {QUEUE_IMAGES: float(self._serving.admission.images)}

    async def _answer(self, call: ForwardedCall) -> Reply:
        return await self._answering.answer(call)

    async def _stream(self, requests: AsyncIterator[Any]) -> AsyncGenerator[Reply, None]:
        async for reply in self._answering.stream(requests):
            yield reply

    async def _keep_reporting(self) -> None:
        while True:
            await report(self._target)
            await asyncio.sleep(REPORT_SECONDS)

    async def __del__(self) -> None:
        if not hasattr(self, "_beside"):
            return  # it did not start
        for task in self._beside:
            task.cancel()
        self._serving.state.drain()
        self._serving.state.stop()
        self._serving.gate.close()
        await self._serving.close()
        log.info("replica stopped", replica=self._target.replica)


def _http_app(serving: Serving, settings: RayServeSettings) -> ASGIApp:
    options = HttpOptions(
        serving.loader.max_receive_bytes, settings.http_origins, serving.security.tokens
    )
    return _for_ray(
        build_app(serving.services, serving.state, serving.gate, serving.observer, options)
    )


def _for_ray(app: ASGIApp) -> ASGIApp:
    """Return an application as Ray's server needs it.

    It is told of start and stop, and leaves out the header that Ray sends by itself: the id of
    the request, which Ray gives it if the client did not.
    """

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await app(scope, receive, partial(_without_id, send))
            return
        for _ in range(2):  # startup, shutdown
            message = await receive()
            await send({"type": f"{message['type']}.complete"})

    return answer


async def _without_id(send: Send, message: Message) -> None:
    if message["type"] == "http.response.start":
        headers = MutableHeaders(raw=message["headers"])
        del headers[REQUEST_ID]
    await send(message)


def _serve_metrics(serving: Serving, settings: RayServeSettings) -> Target:
    node: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call] # Ray gives it no types
    host = settings.host_of_metrics
    port = serve_metrics(serving.metrics, host, settings.metrics_port)
    reached = node if is_wildcard(host) else host
    context = serve.get_replica_context()
    version = serving.current.active.model.manifest.version
    return Target(
        settings.ray_name, context.replica_id.unique_id, f"{reached}:{port}", str(version)
    )


# Ray finds the function of a call by the name of the method; they all do the same.
for name in UNARY_METHODS:
    setattr(ForwardReplica, name, ForwardReplica._answer)
for name in STREAM_METHODS:
    setattr(ForwardReplica, name, ForwardReplica._stream)
