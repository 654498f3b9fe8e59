"""The routes of the HTTP port: the page, health, and the services by their protocols."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from server.api.methods import Service, StreamMethod
from server.errors import quote
from server.lifecycle.gate import CallGate
from server.lifecycle.state import ServingState
from server.observability.calls import CallObserver
from server.observability.http_metrics import FILES_ROUTE
from server.security.tokens import Tokens
from server.transport.http.access import TokenCheck
from server.transport.http.bodies import BoundedBody
from server.transport.http.connect import ConnectApplication, method_path
from server.transport.http.content import ContentTypes
from server.transport.http.open_inference import document_route, open_inference_routes
from server.transport.http.records import RECORD, RecordedCalls
from server.transport.http.refusals import refusal
from server.transport.http.requests import Requests

PACKAGE = "forward-server"
WEB = Path(__file__).with_name("web")
MAX_PREFLIGHT_SECONDS = 600  # a browser asks again whether another origin may call

log = structlog.get_logger()


@dataclass(frozen=True)
class HttpOptions:
    """What the HTTP port takes and from whom.

    Attributes:
        max_body_bytes: of a request, as it is sent and decompressed.
        origins: those of other pages that may call, as CORS has them; "*": any.
        tokens: one of them is needed for calls; None: none is.
        health_needs_token: whether health checks need one, too.
    """

    max_body_bytes: int
    origins: Sequence[str] = ()
    tokens: Tokens | None = None
    health_needs_token: bool = False


def build_app(
    services: Sequence[Service],
    state: ServingState,
    gate: CallGate,
    observer: CallObserver,
    options: HttpOptions,
) -> ASGIApp:
    """Return the application that answers every request to the port.

    Args:
        services: forward.v1 and the Open Inference Protocol.
        state: tells if the server drains.
        gate: refuses calls when it is closed.
        observer: reports of the calls.
        options: limits and tokens.
    """
    forward, inference = services
    routes = [
        *_health_routes(state, options),
        *_connect_routes(forward, gate, observer, options),
        *_open_inference_routes(inference, gate, observer, options),
    ]
    handlers = {HTTPException: _on_http_error, Exception: _on_failure}
    app = Starlette(routes=routes, middleware=_cors(options), exception_handlers=handlers)
    app.router.default = GZipMiddleware(StaticFiles(directory=WEB, html=True))
    labels = _labels(routes)
    counted = observer.metrics.register_routes(dict.fromkeys((FILES_ROUTE, *labels.values())))
    return Requests(app, labels, counted, lambda: state.is_draining)


def _health_routes(state: ServingState, options: HttpOptions) -> list[BaseRoute]:
    async def live(_request: Request) -> Response:
        return PlainTextResponse("live\n")

    async def ready(_request: Request) -> Response:
        if state.is_draining:
            return PlainTextResponse("the server is shutting down\n", 503)
        return PlainTextResponse("ready\n")

    routes = [Route("/livez", live), Route("/readyz", ready)]
    if options.health_needs_token:
        for route in routes:
            route.app = _guarded(route.app, options)
    return list(routes)


def _connect_routes(
    service: Service, gate: CallGate, observer: CallObserver, options: HttpOptions
) -> list[BaseRoute]:
    app = ConnectApplication(service, gate, observer, options.max_body_bytes)
    routes = []
    for method in service.methods:
        is_stream = isinstance(method, StreamMethod)
        # A stream has no bound but that of each message, which connectrpc keeps.
        bounded: ASGIApp = app if is_stream else BoundedBody(app, options.max_body_bytes)
        typed = ContentTypes(bounded, is_stream=is_stream)
        path = method_path(service, method)
        guarded = _guarded(typed, options)
        recorded = RecordedCalls(guarded, path, observer)
        routes.append(Route(path, recorded, methods=["POST"]))
    return list(routes)


def _open_inference_routes(
    service: Service, gate: CallGate, observer: CallObserver, options: HttpOptions
) -> list[BaseRoute]:
    routes = [document_route(version(PACKAGE))]
    for route, method in open_inference_routes(service, gate, observer, options.max_body_bytes):
        route.app = RecordedCalls(_guarded(route.app, options), method, observer)
        routes.append(route)
    return list(routes)


def _guarded(app: ASGIApp, options: HttpOptions) -> ASGIApp:
    """Return what lets only requests with a token through to an app, if tokens are configured."""
    return TokenCheck(app, options.tokens) if options.tokens else app


def _cors(options: HttpOptions) -> list[Middleware]:
    if not options.origins:
        return []
    cors = Middleware(
        CORSMiddleware,
        allow_origins=list(options.origins),
        allow_methods=["GET", "POST"],
        allow_headers=["*"],
        expose_headers=["*"],
        max_age=MAX_PREFLIGHT_SECONDS,
    )
    return [cors]


def _labels(routes: Sequence[BaseRoute]) -> Mapping[object, str]:
    """Return what requests are counted by, by the endpoint that answers them."""
    labels: dict[object, str] = {}
    for route in routes:
        if isinstance(route, Route):
            labels.setdefault(route.endpoint, route.path)
    return labels


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 (Starlette's handlers have the wider type)
    where, headers = quote(request.url.path), dict(error.headers or {})
    status = error.status_code
    is_file = "endpoint" not in request.scope  # as is all that has no route
    if status == 404 or is_file:
        status, text = 404, f"nothing takes {request.method} at {where}; the page is at /"
        headers.pop("Allow", None)
    elif status == 405:
        text = f"expected {headers['Allow']} for {where}, got {request.method}"
    else:
        text = error.detail
    return refusal(request.scope, status, text, headers)


async def _on_failure(request: Request, error: Exception) -> Response:
    record = request.scope[RECORD]
    log.error("request failed", request_id=record.request_id, peer=record.peer, exc_info=error)
    text = f"internal error; the server's log has the cause under request {record.request_id}"
    return refusal(request.scope, 500, text)
