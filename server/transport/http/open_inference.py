"""The Open Inference Protocol over REST, as Triton and KServe speak it: the routes at /v2."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from server.api.methods import Service, UnaryMethod
from server.api.open_inference.openapi import document
from server.api.open_inference.requests import RestRequest
from server.api.open_inference.rest import (
    LENGTH_HEADER,
    in_rest_terms,
    index_request,
    infer_request,
    raw_request,
)
from server.api.open_inference.rest_responses import (
    MODEL_METADATA,
    MODEL_READS,
    SERVER_READS,
    Body,
    Read,
    index_body,
    infer_body,
)
from server.errors import InvalidArgumentError, ServiceError, Violation, quote
from server.lifecycle.gate import CallGate
from server.observability.calls import CallObserver
from server.transport.http.bodies import BoundedBody
from server.transport.http.calls import HttpCall, answer
from server.transport.http.compression import (
    MIN_BYTES,
    BodyTooLargeError,
    chosen_coding,
    compress,
    decompress,
)
from server.transport.http.content import is_curls_form
from server.transport.http.errors import error_response
from server.transport.http.records import RECORD
from server.transport.http.refusals import refusal

PREFIX = "/v2"
MODEL_PATHS = (f"{PREFIX}/models/{{model}}", f"{PREFIX}/models/{{model}}/versions/{{version}}")
INDEX_PATH = f"{PREFIX}/repository/index"
DOCUMENT_PATH = f"{PREFIX}/openapi.json"
INFER, INDEX = "ModelInfer", "RepositoryIndex"
JSON_TYPE, BINARY_TYPE = "application/json", "application/octet-stream"
TYPES = (JSON_TYPE, BINARY_TYPE, "binary/octet-stream")
Respond = Callable[[bytes, Request], Awaitable[Response]]


def open_inference_routes(
    service: Service, gate: CallGate, observer: CallObserver, max_body_bytes: int
) -> list[tuple[Route, str]]:
    """Return the routes of the protocol, each with the name of its method.

    Args:
        service: the protocol's methods.
        gate: refuses calls when it is closed.
        observer: is told how long responses take to make.
        max_body_bytes: of a request, as it is sent and decompressed.
    """
    methods, name = _Methods(service, gate), f"/{service.descriptor.full_name}"
    reads = [(PREFIX, read) for read in SERVER_READS]
    reads += [(path, read) for path in MODEL_PATHS for read in MODEL_READS]
    routes = [
        (Route(path + read.path, partial(_read, methods, read)), f"{name}/{read.method}")
        for path, read in reads
    ]
    posts = [(f"{path}/infer", INFER, partial(_infer, methods, observer)) for path in MODEL_PATHS]
    posts.append((INDEX_PATH, INDEX, partial(_index, methods)))
    for path, method, respond in posts:
        app = BoundedBody(_Posted(respond, max_body_bytes), max_body_bytes)
        routes.append((Route(path, app, methods=["POST"]), f"{name}/{method}"))
    return routes


def document_route(version: str) -> Route:
    """Return the route of the OpenAPI document."""
    content = document(version)

    async def read(_request: Request) -> Response:
        return JSONResponse(content)

    return Route(DOCUMENT_PATH, read)


class _Methods:
    """The methods of the service, called by name."""

    def __init__(self, service: Service, gate: CallGate) -> None:
        self._methods = {each.name: each for each in service.methods}
        self._gate = gate

    async def answer(self, name: str, make: Callable[[], object], request: Request) -> Any:  # noqa: ANN401 (the method's response)
        """Return the response to the request that `make` returns."""
        method = self._methods[name]
        assert isinstance(method, UnaryMethod)  # noqa: S101 (the protocol has no streams)
        call = HttpCall(request.scope[RECORD], None, self._gate)
        return await answer(method, make, call, self._gate)


async def _read(methods: _Methods, read: Read, request: Request) -> Response:
    """Answer what the server says of itself or of a model."""
    name, version = _model(request)
    try:
        response = await methods.answer(read.method, partial(read.request, name, version), request)
        if not read.is_true(response) and name:
            # Its error says why: there is no such model, or the server drains.
            metadata = partial(MODEL_METADATA.request, name, version)
            await methods.answer(MODEL_METADATA.method, metadata, request)
    except ServiceError as error:
        return error_response(request.scope, error)
    return JSONResponse(read.content(response), 200 if read.is_true(response) else 503)


def _model(request: Request) -> tuple[str, str]:
    """Return name and version of the model; empty ones if the path has none."""
    return request.path_params.get("model", ""), request.path_params.get("version", "")


class _Posted:
    """Answers the body of a request, in a type and a coding that the protocol has."""

    def __init__(self, respond: Respond, max_body_bytes: int) -> None:
        self._respond = respond
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        response = _refused_type(request)
        if response is None:
            try:
                coding = request.headers.get("content-encoding", "")
                body = decompress(await request.body(), coding, self._max_body_bytes)
                response = await self._respond(body, request)
            except InvalidArgumentError as error:
                response = error_response(scope, in_rest_terms(error))
            except ServiceError as error:
                response = error_response(scope, error)
            except BodyTooLargeError:
                text = f"expected a request body of at most {self._max_body_bytes} bytes, got more"
                response = refusal(scope, 413, f"{text}, decompressed")
        await response(scope, receive, send)


async def _infer(
    methods: _Methods, observer: CallObserver, body: bytes, request: Request
) -> Response:
    """Answer what a body asks of a model."""
    asked = await _infer_request(methods, body, request)
    response = await methods.answer(INFER, lambda: asked, request)
    written = infer_body(response, asked)
    observer.encoded(request.scope[RECORD], 0)  # its bytes are counted as they are sent
    return await _encoded(written, request)


async def _infer_request(methods: _Methods, body: bytes, request: Request) -> RestRequest:
    name, version = _model(request)
    json_bytes = _json_bytes(request, len(body))
    if json_bytes == 0:
        make = partial(MODEL_METADATA.request, name, version)
        metadata = await methods.answer(MODEL_METADATA.method, make, request)
        return raw_request(name, version, body, metadata)
    return infer_request(name, version, body, json_bytes)


async def _index(methods: _Methods, body: bytes, request: Request) -> Response:
    """List the versions of the model."""
    response = await methods.answer(INDEX, partial(index_request, body), request)
    return JSONResponse(index_body(response))


def _refused_type(request: Request) -> Response | None:
    """Return the error of a content type that is none of the protocol's."""
    sent = request.headers.get("content-type", JSON_TYPE)
    content_type = sent.partition(";")[0].strip().lower()
    if content_type in TYPES or is_curls_form(request.scope, content_type):
        return None
    text = f"expected Content-Type {JSON_TYPE} or {BINARY_TYPE}, got {quote(sent)}"
    return refusal(request.scope, 415, text, {"accept-post": ", ".join(TYPES)})


def _json_bytes(request: Request, body_bytes: int) -> int | None:
    """Return how long the JSON of a body is; None: all of it.

    Raises:
        InvalidArgumentError: the header that says so is no such number.
    """
    sent = request.headers.get(LENGTH_HEADER)
    if sent is None:
        return None
    digits = sent.strip()
    if digits.isascii() and digits.isdigit() and len(digits) < 20 and int(digits) <= body_bytes:
        return int(digits)
    text = f"expected a whole number up to {body_bytes}, the bytes of the body, got {quote(sent)}"
    raise InvalidArgumentError([Violation(LENGTH_HEADER, text)])


async def _encoded(body: Body, request: Request) -> Response:
    """Return a response, compressed if its client asks for that."""
    headers = {"vary": "Accept-Encoding"}
    content = body.content
    coding = chosen_coding(request.headers.get("accept-encoding", ""))
    if coding and len(content) >= MIN_BYTES:
        content = await compress(content, coding)
        headers["content-encoding"] = coding
    if body.json_bytes is None:
        return Response(content, 200, headers, JSON_TYPE)
    return Response(content, 200, {**headers, LENGTH_HEADER: str(body.json_bytes)}, BINARY_TYPE)
