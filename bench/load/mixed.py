"""Callers of every kind at once, each answer compared: Predict, Trace, streams, Open Inference."""

import asyncio
import contextlib
import itertools
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc

from bench.load.requests import Request
from forward.v1 import forward_pb2 as pb
from inference import open_inference_pb2 as oip

CONNECTIONS = 8
CALL_SECONDS = 60
STREAM_MESSAGES = 100
STREAM = Request("PredictStream", 1)
# 32 callers, each with its next request when its last was answered.
CALLERS: Sequence[Request] = (
    *(Request("Predict", 1),) * 18,
    *(Request("Predict", 64),) * 4,
    *(Request("Trace", 1),) * 4,
    *(Request("ModelInfer", 1),) * 4,
    *(STREAM,) * 2,
)
PARSERS: dict[str, Callable[[bytes], Any]] = {
    "Predict": pb.PredictResponse.FromString,
    "PredictStream": pb.PredictStreamResponse.FromString,
    "Trace": pb.TraceResponse.FromString,
    "ModelInfer": oip.ModelInferResponse.FromString,
}


@dataclass
class Outcome:
    """What the callers saw."""

    answered: Counter[str] = field(default_factory=Counter)  # by method
    failed: Counter[str] = field(default_factory=Counter)  # by method, status and text


class MixedLoad:
    """The callers of an address; they call from enter to exit.

    Example: `with MixedLoad(address) as load: ...; print(load.outcome)`.
    """

    def __init__(self, address: str, pause_seconds: float = 0) -> None:
        """Prepare the callers, each of which pauses so long after an answer."""
        self._address = address
        self._pause = pause_seconds
        self._ended = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self._expected = _expected(address)
        self.outcome = Outcome()

    def __enter__(self) -> "MixedLoad":
        """Start the callers."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Let every caller's current call be its last."""
        self._ended.set()
        self._thread.join()

    async def _run(self) -> None:
        async with contextlib.AsyncExitStack() as stack:
            channels = []
            for index in range(CONNECTIONS):
                # Channels of the same address and options would share one connection.
                options = [("bench.connection", index)]
                channel = grpc.aio.insecure_channel(self._address, options)
                channels.append(await stack.enter_async_context(channel))
            await asyncio.gather(
                *(
                    self._call(request, channels[index % CONNECTIONS])
                    for index, request in enumerate(CALLERS)
                )
            )

    async def _call(self, request: Request, channel: grpc.aio.Channel) -> None:
        message, parse = request.message(), PARSERS[request.method]
        unary: Any = channel.unary_unary(request.path, response_deserializer=parse)
        stream: Any = channel.stream_stream(request.path, response_deserializer=parse)
        while not self._ended.is_set():
            await asyncio.sleep(self._pause)
            try:
                if request is STREAM:
                    messages = itertools.repeat(message, STREAM_MESSAGES)
                    call = stream(messages, timeout=CALL_SECONDS)
                    answers = [answer async for answer in call]
                    self._count(request, answers, STREAM_MESSAGES)
                else:
                    self._count(request, [await unary(message, timeout=CALL_SECONDS)], 1)
            except grpc.aio.AioRpcError as error:
                text = f"{request.method}: {error.code().name}: {error.details()}"
                self.outcome.failed[text] += 1
                await asyncio.sleep(0.01)

    def _count(self, request: Request, answers: Sequence[Any], expected: int) -> None:
        if len(answers) != expected:
            self.outcome.failed[f"{request.method}: {len(answers)} answers of {expected}"] += 1
        elif any(_logits(answer) != self._expected[request.images] for answer in answers):
            self.outcome.failed[f"{request.method}: other bits than before the load"] += 1
        else:
            self.outcome.answered[request.method] += 1


def _logits(answer: Any) -> bytes:  # noqa: ANN401 (messages of two protocols)
    if isinstance(answer, oip.ModelInferResponse):
        return answer.raw_output_contents[0]
    data: bytes = answer.logits.data
    return data


def _expected(address: str) -> dict[int, bytes]:
    """Return the logits by the number of images, as they are answered without load."""
    with grpc.insecure_channel(address) as channel:
        expected = {}
        for images in {request.images for request in CALLERS}:
            request = Request("Predict", images)
            predict: Any = channel.unary_unary(request.path)
            answer = pb.PredictResponse.FromString(
                predict(request.message(), timeout=CALL_SECONDS, wait_for_ready=True)
            )
            expected[images] = answer.logits.data
        return expected
