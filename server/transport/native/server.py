"""The native transport as a server of grpc.aio looks: the same handlers and interceptors."""

import asyncio
import os
import socket
from collections.abc import Collection, Sequence
from contextlib import aclosing, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import grpc
import structlog

from server.addresses import bind_all, claim_socket, unix_path
from server.limits import RequestLimits
from server.observability.calls import CallObserver
from server.observability.metrics import ServerMetrics
from server.repository.current import CurrentModel
from server.security.tls import ServerTls
from server.transport.grpc.handlers import note_identity
from server.transport.grpc.unknown import UnknownMethods
from server.transport.native.context import NativeContext
from server.transport.native.extension import Extension, Metadata
from server.transport.native.lane import LaneUpdates
from server.transport.native.observations import Observations
from server.transport.native.tls import use_credentials
from server.transport.native.totals import TotalsReader
from server.transport.native.watchdog import Watchdog

# Kinds of events.
CALL, MESSAGE, HALF_CLOSED, SENT, ENDED, STOPPED, LOG, OBSERVED, SAMPLED = range(9)
BACKLOG = 1024  # connections that wait to be accepted
REMEDY = "choose another with --host or --grpc-port"

Handler: TypeAlias = Any  # grpc.RpcMethodHandler, of which the stubs know the blocking form alone
Status = tuple[grpc.StatusCode, str, Metadata]
NO_REQUESTS = ()  # handlers of streams read from the context instead
NOT_FOUND: Status = (grpc.StatusCode.UNIMPLEMENTED, "Method not found!", ())
OK: Status = (grpc.StatusCode.OK, "", ())
NO_REQUEST: Status = (grpc.StatusCode.UNIMPLEMENTED, "expected one request, got none", ())

log = structlog.get_logger()


class CallDetails(NamedTuple):
    """What generic handlers and interceptors are given; as grpc.HandlerCallDetails."""

    method: str
    invocation_metadata: Metadata


class NativeServer:
    """Carries calls from the extension to generic handlers, through the interceptors.

    All methods belong to one event loop, which the extension's thread wakes by a descriptor.
    """

    def __init__(
        self,
        extension: Extension,
        handlers: Sequence[grpc.GenericRpcHandler],
        observer: CallObserver,
        interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
    ) -> None:
        self._extension, self._observer = extension, observer
        self._handlers = tuple(handlers)
        self._interceptors = tuple(interceptors)
        self._found: dict[str, Handler] = {}  # by method
        self._calls: dict[int, tuple[NativeContext, asyncio.Task[None]]] = {}
        self._flushed: asyncio.Future[None] | None = None
        self._stopped = asyncio.Event()
        self._socket_path: Path | None = None
        self._watchdog = Watchdog(extension)
        self._observations = Observations(observer)
        self._lane: LaneUpdates | None = None

    def listen(self, host: str, port: int) -> int:
        """Listen on every address of a host; return the port, which for 0 is one that was free.

        For a Unix domain socket it is 0: that has none.

        Raises:
            StartError: an address cannot be bound; the text names it.
        """
        if path := unix_path(host):
            claim_socket(path, REMEDY)
            bound = socket.socket(socket.AF_UNIX)
            bound.bind(os.fspath(path))
            self._adopt(bound, is_unix=True)
            self._socket_path = path
            return 0
        sockets = [each for _, each in bind_all(host, port, "gRPC", REMEDY)]
        port = sockets[0].getsockname()[1]
        for each in sockets:
            self._adopt(each, is_unix=False)
        return port

    def _adopt(self, bound: socket.socket, *, is_unix: bool) -> None:
        bound.listen(BACKLOG)
        bound.setblocking(False)
        self._extension.adopt(bound.detach(), is_unix)

    def secure(self, tls: ServerTls) -> None:
        """Speak TLS; new connections use what the files hold, by their last refresh.

        Raises:
            StartError: the extension can't use what they hold; the text says what.
        """
        tls.watched.use(partial(use_credentials, self._extension))

    async def start(self) -> None:
        """Answer calls from now on."""
        self._extension.start()
        self._watchdog.start()
        asyncio.get_running_loop().add_reader(self._extension.event_fd, self._take)

    async def stop(self, grace: float | None) -> None:
        """Accept no more calls; end those that still run after `grace` seconds."""
        self._extension.stop(grace or 0.0)
        await self._stopped.wait()
        self._watchdog.stop()
        asyncio.get_running_loop().remove_reader(self._extension.event_fd)
        await asyncio.to_thread(self._extension.join)
        if self._socket_path:
            self._socket_path.unlink(missing_ok=True)

    def count_into(self, metrics: ServerMetrics, impossible: Collection[str]) -> None:
        """Add what the extension counts to the metrics, but for reasons that can't happen."""
        TotalsReader(self._extension, metrics, lambda: len(self._calls), impossible)

    async def open_lane(
        self, current: CurrentModel, limits: RequestLimits, threads: int
    ) -> LaneUpdates:
        """Let the lane answer by the current version; return what keeps it so."""
        metrics = self._observer.metrics
        updates = self._lane = LaneUpdates(self._extension, current, limits, threads, metrics)
        await updates.update()
        return updates

    def set_tokens(self, tokens: Sequence[bytes]) -> None:
        """Let the lane answer calls with one of these tokens; any thread may call it."""
        self._extension.set_tokens([token.decode() for token in tokens])

    def close_gate(self) -> None:
        """Hand every call over from now on, also those that the lane would answer."""
        self._extension.set_gate(closed=True)

    def _take(self) -> None:
        for event in self._extension.take():
            try:
                self._take_event(event[0], event)
            except Exception:
                log.exception("an event of the native transport failed", kind=event[0])
        self._observations.report()

    def _take_event(self, kind: int, event: tuple[Any, ...]) -> None:
        if kind == CALL:
            self._begin(event)
        elif kind == STOPPED:
            self._end_all()
        elif kind == LOG:
            getattr(log, event[1])(event[2])
        elif kind == OBSERVED:
            self._observations.add(event[1], self._lane.model_name if self._lane else "")
        elif kind == SAMPLED:
            if self._lane is not None:
                self._lane.take_samples(event[1])
        elif (known := self._calls.get(event[1])) is not None:
            _tell(kind, event, *known)

    def _begin(self, event: tuple[Any, ...]) -> None:
        context = NativeContext(self._extension, self._request_flush, event)
        task = asyncio.create_task(self._serve(context, event[-1]))
        call = context.call
        self._calls[call] = (context, task)
        task.add_done_callback(partial(self._forget, call))

    def _forget(self, call: int, _task: asyncio.Task[None]) -> None:
        del self._calls[call]

    def _end_all(self) -> None:
        for context, task in self._calls.values():
            context.has_ended = True
            task.cancel()
        self._stopped.set()

    def _request_flush(self) -> asyncio.Future[None]:
        """Hand over the answers of this turn together at its end; return what tells when."""
        if self._flushed is None:
            loop = asyncio.get_running_loop()
            self._flushed = loop.create_future()
            loop.call_soon(self._flush)
        return self._flushed

    def _flush(self) -> None:
        self._extension.flush()
        flushed, self._flushed = self._flushed, None
        if flushed is not None and not flushed.done():
            flushed.set_result(None)

    async def _serve(self, context: NativeContext, message: bytes | None) -> None:
        """Answer a call. Its task ends a turn after its response was handed over."""
        with suppress(asyncio.CancelledError):  # only the client's end cancels it
            status: Status | None
            try:
                handler = await self._handler(context)
                if handler is None:
                    status = NOT_FOUND
                else:
                    status = await self._run(handler, context, message)
            except grpc.aio.AbortError:
                status = context.status
            except Exception as error:
                log.exception("a handler failed", method=context.method)
                status = (grpc.StatusCode.UNKNOWN, f"Unexpected {type(error)}: {error}", ())
            del message
            if status is not None and not context.has_ended:
                code, text, trailing = status
                self._extension.finish(context.call, code.value[0], text, list(trailing))
            # A response has left then: batches are formed by what is in flight.
            await asyncio.shield(self._request_flush())

    async def _run(
        self, handler: Handler, context: NativeContext, message: bytes | None
    ) -> Status | None:
        """Run a call's handler; return the status to end with, None if it was sent."""
        context.serialize = handler.response_serializer or bytes
        if handler.request_streaming:
            await handler.stream_stream(NO_REQUESTS, context)
            return OK
        if message is None:
            message = await context.read()
        if message is grpc.aio.EOF:
            return NO_REQUEST
        request = _request(handler, message)
        del message
        if handler.response_streaming:
            async with aclosing(handler.unary_stream(request, context)) as responses:
                async for response in responses:
                    await context.write(response)
            return OK
        answering = handler.unary_unary(request, context)
        del request
        response = await answering
        self._extension.respond(context.call, context.serialize(response))
        return None

    async def _handler(self, context: NativeContext) -> Handler | None:
        details = CallDetails(context.method, context.invocation_metadata())
        if not self._interceptors:
            return self._find(details)

        async def find(details: CallDetails) -> Handler | None:
            return self._find(details)

        continuation: Any = find
        for interceptor in reversed(self._interceptors):
            continuation = partial(interceptor.intercept_service, continuation)
        handler: Handler | None = await continuation(details)
        return handler

    def _find(self, details: CallDetails) -> Handler | None:
        if (known := self._found.get(details.method)) is not None:
            note_identity(details.invocation_metadata)  # as the one who found it did
            return known
        for generic in self._handlers:
            handler: Handler | None = generic.service(details)  # type: ignore[arg-type] # has what it needs
            if handler is not None:
                if not isinstance(generic, UnknownMethods):  # of those there is no end
                    self._found[details.method] = handler
                return handler
        return None


def _request(handler: Handler, message: bytes) -> Any:  # noqa: ANN401 (of the handler's own type)
    return handler.request_deserializer(message) if handler.request_deserializer else message


def _tell(
    kind: int, event: tuple[Any, ...], context: NativeContext, task: asyncio.Task[None]
) -> None:
    if kind == MESSAGE:
        context.receive(event[2])
    elif kind == HALF_CLOSED:
        context.receive(None)
    elif kind == SENT:
        context.note_sent()
    elif kind == ENDED:
        context.has_ended, context.end_code = True, event[2]
        task.cancel()
