"""Callers with a standard retry policy of gRPC, and without, and what each call came to."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc

from forward.v1 import forward_pb2 as pb

TIMEOUT_SECONDS = 20
CALLERS_PER_CHANNEL = 4
PREDICT = "/forward.v1.ForwardService/Predict"
PAUSE_SECONDS = 0.01  # after a failure
# What the documents of gRPC have as the example, for UNAVAILABLE alone.
RETRY_POLICY = {
    "methodConfig": [
        {
            "name": [{"service": "forward.v1.ForwardService"}],
            "retryPolicy": {
                "maxAttempts": 5,
                "initialBackoff": "0.1s",
                "maxBackoff": "2s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ]
}


@dataclass
class Outcomes:
    """What the calls came to."""

    versions: Counter[int] = field(default_factory=Counter)  # of answers
    failed: Counter[str] = field(default_factory=Counter)  # by status
    texts: Counter[str] = field(default_factory=Counter)  # of failures
    seconds: list[float] = field(default_factory=list)  # of answers
    failed_at: list[float] = field(default_factory=list)  # by time.monotonic
    answered_at: list[float] = field(default_factory=list)  # likewise

    @property
    def answered(self) -> int:
        """Return how many calls were answered."""
        return sum(self.versions.values())


class Callers:
    """Callers who send the next request when the last has been answered.

    Args:
        port: of the server, on the loopback address.
        callers: so many.
        retries: whether their channels have the retry policy.
        method: full name; an echo takes any.
        metadata: of each call.
    """

    def __init__(
        self,
        port: int,
        callers: int,
        *,
        retries: bool,
        method: str = PREDICT,
        metadata: Sequence[tuple[str, str]] = (),
    ) -> None:
        self._metadata = tuple(metadata)
        self._port, self._callers, self._retries, self._method = port, callers, retries, method
        self._ended = asyncio.Event()
        images = pb.Tensor(dtype=pb.DATA_TYPE_UINT8, shape=[1, 28, 28], data=bytes(28 * 28))
        self._message = pb.PredictRequest(images=images).SerializeToString()
        self.outcomes = Outcomes()

    def end(self) -> None:
        """Let each caller's current call be its last."""
        self._ended.set()

    async def run_for(self, seconds: float) -> Outcomes:
        """Call for so long; return what came of it."""
        asyncio.get_running_loop().call_later(seconds, self.end)
        await self.run()
        return self.outcomes

    async def run(self) -> None:
        """Call until the end."""
        channels = [self._channel() for _ in range(-(-self._callers // CALLERS_PER_CHANNEL))]
        try:
            turns = (channels[n % len(channels)] for n in range(self._callers))
            await asyncio.gather(*(self._call_on(channel) for channel in turns))
        finally:
            await asyncio.gather(*(channel.close() for channel in channels))

    def _channel(self) -> grpc.aio.Channel:
        options: list[tuple[str, Any]] = [("grpc.use_local_subchannel_pool", 1)]
        if self._retries:
            options.append(("grpc.service_config", json.dumps(RETRY_POLICY)))
        else:
            options.append(("grpc.enable_retries", 0))
        return grpc.aio.insecure_channel(f"127.0.0.1:{self._port}", options)

    async def _call_on(self, channel: grpc.aio.Channel) -> None:
        call: Any = channel.unary_unary(self._method)
        outcomes = self.outcomes
        while not self._ended.is_set():
            started = time.monotonic()
            try:
                data = await call(self._message, timeout=TIMEOUT_SECONDS, metadata=self._metadata)
            except grpc.aio.AioRpcError as error:
                outcomes.failed[error.code().name] += 1
                outcomes.texts[f"{error.code().name}: {(error.details() or '')[:100]}"] += 1
                outcomes.failed_at.append(time.monotonic())
                await asyncio.sleep(PAUSE_SECONDS)
                continue
            outcomes.answered_at.append(time.monotonic())
            outcomes.seconds.append(outcomes.answered_at[-1] - started)
            version = 0  # of an echo
            if self._method == PREDICT:
                version = pb.PredictResponse.FromString(data).model.version
            outcomes.versions[version] += 1
