"""Servers ended by SIGTERM under load, and every call's outcome: `python -m bench drain`."""

import asyncio
import contextlib
import itertools
import signal
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc

from bench.load.processes import STUCK_SECONDS, Served, running
from bench.load.requests import Request
from bench.reports.tables import number, table
from bench.scenarios.speed import say
from bench.servers.forward import Setting, Transport, forward
from forward.v1 import forward_pb2 as pb
from forward.v1.forward_pb2_grpc import ForwardServiceStub
from forward_client.messages import tensor_of

if TYPE_CHECKING:  # it is in the stubs alone
    from forward.v1.forward_pb2_grpc import ForwardServiceAsyncStub

CONNECTIONS = 8
LOAD_SECONDS = 1.0  # before SIGTERM
CALL_SECONDS = 60
PAUSE_SECONDS = 0.01  # after a refusal
STREAM_MESSAGES = 500
STREAM = Request("PredictStream", 1)
# 32 callers, each with its next request when its last was answered.
CALLERS: Sequence[Request] = (
    *(Request("Predict", 1),) * 22,
    *(Request("Predict", 64),) * 4,
    *(Request("Trace", 1),) * 4,
    *(STREAM,) * 2,
)


@dataclass
class Drain:
    """What the callers of one server saw."""

    delay_seconds: float
    answered: Counter[str] = field(default_factory=Counter)  # by method
    refused: int = 0  # UNAVAILABLE, of calls that began after SIGTERM and the delay
    ended_streams: int = 0  # UNAVAILABLE after their last answer, after SIGTERM and the delay
    lost: Counter[str] = field(default_factory=Counter)  # whatever else, by status
    seconds: float = 0.0  # from SIGTERM to the end
    exit_status: int | None = None

    @property
    def holds(self) -> bool:
        """Tell if no call was lost, and the server said that it ended well."""
        return bool(
            all(self.answered[request.method] for request in CALLERS)
            and self.refused
            and not self.lost
            and self.exit_status == 0
        )


def drains(transport: Transport, count: int, *, closes_log: bool = False) -> str:
    """Return the table of so many drains, every second one with a delay.

    Raises:
        RuntimeError: a call was lost, or a server did not end with status 0.
    """
    seen = []
    for index in range(count):
        seen.append(drain(0.5 * (index % 2), transport, closes_log=closes_log))
        say(f"{index + 1}: {seen[-1]}")
    text = _report(seen)
    if not all(each.holds for each in seen):
        raise RuntimeError(f"calls were lost, or a server ended badly:\n{text}")
    return text


def drain(delay_seconds: float, transport: Setting = "auto", *, closes_log: bool = False) -> Drain:
    """Start a server, load it, end it by SIGTERM; return what its callers saw.

    The reader of its log may go away before.
    """
    arguments = (*forward(transport), "--drain-delay", str(delay_seconds))
    with running(*arguments, closes_log=closes_log) as served:
        return asyncio.run(_Load(served, delay_seconds).run())


class _Load:
    """The callers of one server, until it has ended."""

    def __init__(self, served: Served, delay_seconds: float) -> None:
        self._served = served
        self._refusal: float | None = None  # time.monotonic() from which calls may be refused
        self._ended = asyncio.Event()
        self._seen = Drain(delay_seconds)
        self._address = f"127.0.0.1:{served.port}"
        self._logits = _expected(self._address)

    async def run(self) -> Drain:
        async with contextlib.AsyncExitStack() as stack:
            services = []
            for index in range(CONNECTIONS):
                # Channels of the same address and options would share one connection.
                options = [("bench.connection", index)]
                channel = grpc.aio.insecure_channel(self._address, options)
                await stack.enter_async_context(channel)
                services.append(ForwardServiceStub(channel))
            callers = [
                asyncio.create_task(
                    self._call_until_the_end(request, services[index % CONNECTIONS])
                )
                for index, request in enumerate(CALLERS)
            ]
            await asyncio.sleep(LOAD_SECONDS)
            await self._end()
            await asyncio.gather(*callers)
        return self._seen

    async def _end(self) -> None:
        process = self._served.process
        sent = time.monotonic()
        self._refusal = sent + self._seen.delay_seconds
        process.send_signal(signal.SIGTERM)
        self._seen.exit_status = await asyncio.to_thread(process.wait, STUCK_SECONDS)
        self._seen.seconds = time.monotonic() - sent
        self._ended.set()

    async def _call_until_the_end(
        self, request: Request, service: "ForwardServiceAsyncStub"
    ) -> None:
        call = self._stream if request is STREAM else self._unary
        while not self._ended.is_set():
            began = time.monotonic()
            try:
                await call(request, service)
            except grpc.RpcError as error:
                self._failed(request, error, began)
                await asyncio.sleep(PAUSE_SECONDS)
            else:
                self._seen.answered[request.method] += 1

    def _failed(self, request: Request, error: Any, began: float) -> None:  # noqa: ANN401 (grpc's two kinds of RpcError share no type with a code)
        # A stream goes on until it is ended; a call that had begun by then must be answered.
        since = time.monotonic() if request is STREAM else began
        unavailable = error.code() is grpc.StatusCode.UNAVAILABLE
        if not unavailable or self._refusal is None or since < self._refusal:
            self._seen.lost[f"{request.method}: {error.code().name}: {error.details()}"] += 1
        elif "up to the last answer" in (error.details() or ""):
            self._seen.ended_streams += 1
        else:
            self._seen.refused += 1

    async def _unary(self, request: Request, service: "ForwardServiceAsyncStub") -> None:
        images = tensor_of(request.array())
        answer: pb.PredictResponse | pb.TraceResponse
        if request.method == "Trace":
            answer = await service.Trace(pb.TraceRequest(images=images), timeout=CALL_SECONDS)
        else:
            answer = await service.Predict(pb.PredictRequest(images=images), timeout=CALL_SECONDS)
        self._compare(request, answer.logits)

    async def _stream(self, request: Request, _service: "ForwardServiceAsyncStub") -> None:
        # In a thread: for a stream that the server ends, grpc.aio's client may put an
        # INTERNAL of its own in the place of the status (grpc/grpc#36066).
        answers = await asyncio.to_thread(_stream_answers, self._address, request)
        for logits in answers:
            self._compare(request, logits)
        if len(answers) != STREAM_MESSAGES:
            missing = STREAM_MESSAGES - len(answers)
            self._seen.lost[f"{missing} answers of a stream that ended with OK"] += 1

    def _compare(self, request: Request, logits: pb.Tensor) -> None:
        if logits.data != self._logits[request.images]:
            self._seen.lost[f"{request.method}: other bits than before the load"] += 1


def _stream_answers(address: str, request: Request) -> list[pb.Tensor]:
    message = pb.PredictStreamRequest(images=tensor_of(request.array()))
    messages = itertools.repeat(message, STREAM_MESSAGES)
    with grpc.insecure_channel(address) as channel:
        answers = ForwardServiceStub(channel).PredictStream(messages, timeout=CALL_SECONDS)
        return [answer.logits for answer in answers]


def _expected(address: str) -> dict[int, bytes]:
    """Return the logits by the number of images, as a server without load answers."""
    with grpc.insecure_channel(address) as channel:
        service = ForwardServiceStub(channel)
        return {
            request.images: service.Predict(
                pb.PredictRequest(images=tensor_of(request.array())), timeout=CALL_SECONDS
            ).logits.data
            for request in CALLERS
        }


def _report(seen: Sequence[Drain]) -> str:
    methods = sorted({request.method for request in CALLERS})
    rows = [
        (
            f"{each.delay_seconds}",
            *(f"{each.answered[method]:,}" for method in methods),
            f"{each.refused:,}",
            str(each.ended_streams),
            "; ".join(f"{count} {what}" for what, count in each.lost.items()) or "0",
            number(each.seconds),
            str(each.exit_status),
        )
        for each in seen
    ]
    headings = (
        "delay, s",
        *(f"{method}, OK" for method in methods),
        *("refused", "streams ended", "lost", "s to the end", "exit status"),
    )
    answered = sum(sum(each.answered.values()) for each in seen)
    refused = sum(each.refused for each in seen)
    lost = sum(sum(each.lost.values()) for each in seen)
    return (
        f"{len(seen)} servers, each ended by SIGTERM under the load of {len(CALLERS)} callers over "
        f"{CONNECTIONS} connections: {answered:,} calls OK, {refused:,} UNAVAILABLE that began "
        f"after SIGTERM and --drain-delay, **{lost} others**; exit status 0 "
        f"{sum(each.exit_status == 0 for each in seen)} times. A stream of {STREAM_MESSAGES} "
        "messages that the drain meets is ended after an answer, with UNAVAILABLE.\n\n"
        + table(headings, rows, left=0)
    )
