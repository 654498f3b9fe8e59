"""PredictStream: requests are read ahead within bounds and answered in order, errors one by one."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from forward.v1 import forward_pb2 as pb
from server.api.forward_v1.codec import checked_images, encode_into, identity_message
from server.api.forward_v1.zero_copy import ImageRequest
from server.context import CallContext
from server.engine.instance import Submission
from server.errors import (
    DrainingError,
    ServiceError,
    as_service_error,
    rich_status,
    without_frames,
)
from server.repository.current import ActiveModel, CurrentModel

# Why a stream ends when the server drains.
DRAINED = (
    "the server is shutting down; every request up to the last response was answered, send the "
    "rest to another server"
)
MAX_MESSAGES = 64  # that are read and not yet answered

StreamRequest = ImageRequest[pb.PredictStreamRequest]


@dataclass
class ReadAheadWindow:
    """Bounds what is read and not yet answered; a message that is larger goes alone."""

    max_images: int
    messages: int = 0
    images: int = 0
    _left: asyncio.Event = field(default_factory=asyncio.Event)

    def is_full(self, images: int) -> bool:
        """Tell if a message of so many images must wait."""
        return self.messages >= MAX_MESSAGES or (
            self.messages > 0 and self.images + images > self.max_images
        )

    async def wait_for(self, images: int) -> None:
        """Return when a message of so many images may enter."""
        while self.is_full(images):
            self._left.clear()
            await self._left.wait()

    def enter(self, images: int) -> None:
        """Count a message in."""
        self.messages += 1
        self.images += images

    def leave(self, images: int) -> None:
        """Count a message out: it is answered."""
        self.messages -= 1
        self.images -= images
        self._left.set()


@dataclass(frozen=True, slots=True)
class _Submitted:
    """A message of the stream that was submitted, or why it was not."""

    active: ActiveModel | None  # None: its images are not right, or were not read
    images: int
    outcome: Submission[np.ndarray] | ServiceError


class PredictStream:
    """One call of PredictStream.

    Each message is answered by the model that is active when it is submitted.
    """

    def __init__(self, current: CurrentModel, context: CallContext, max_images: int) -> None:
        self._current = current
        self._context = context
        self._record = context.record
        self._window = ReadAheadWindow(max_images)
        self._submitted: asyncio.Queue[_Submitted | None] = asyncio.Queue()

    async def responses(
        self, requests: AsyncIterator[StreamRequest | ServiceError]
    ) -> AsyncGenerator[pb.PredictStreamResponse, None]:
        """Yield a response to each request, in their order: its logits, or its error.

        Raises:
            DrainingError: the server drains; what was read is answered.
        """
        reader = asyncio.create_task(self._read(requests))
        reader.add_done_callback(lambda _: self._submitted.put_nowait(None))
        self._context.add_drain_callback(partial(_cancel, reader))
        try:
            while (submitted := await self._submitted.get()) is not None:
                try:
                    yield await self._response(submitted)
                finally:
                    self._complete(submitted)
                del submitted  # not to be held while the stream waits for the next
            if reader.cancelled():
                raise DrainingError(DRAINED)
            await reader  # what the transport raised
        finally:
            reader.cancel()
            del reader  # it may hold an error that was raised through this frame
            self._drop_rest()

    async def _read(self, requests: AsyncIterator[StreamRequest | ServiceError]) -> None:
        async for request in requests:
            await self._submit(request)
            del request  # not to be held while the stream waits for the next

    async def _submit(self, request: StreamRequest | ServiceError) -> None:
        active, count = None, 0
        outcome: Submission[np.ndarray] | ServiceError
        if isinstance(request, ServiceError):  # the bytes of the message are no request
            outcome = request
        else:
            try:
                active, images = self._check(request)
                if self._window.is_full(len(images)):
                    await self._window.wait_for(len(images))
                    active, images = self._check(request)  # another model may be active by now
                self._window.enter(len(images))
                count = len(images)
                self._record.asked(active.identity, count)
                outcome = active.instance.predict(images, self._context.deadline, self._record)
            except Exception as error:  # noqa: BLE001 (the stream goes on)
                outcome = self._service_error(error)
        if not count:
            await self._window.wait_for(0)
            self._window.enter(0)
        self._submitted.put_nowait(_Submitted(active, count, outcome))

    def _check(self, request: StreamRequest) -> tuple[ActiveModel, np.ndarray]:
        active = self._current.active
        return active, checked_images(request, active)

    async def _response(self, submitted: _Submitted) -> pb.PredictStreamResponse:
        logits = await self._logits(submitted.outcome)
        active = submitted.active or self._current.active
        self._record.asked(active.identity)  # a later message may have asked another version
        response = pb.PredictStreamResponse(model=identity_message(active.identity))
        if isinstance(logits, ServiceError):
            status = rich_status(logits, self._record.request_id)
            response.error.ParseFromString(status.SerializeToString())
        else:
            encode_into(response.logits, logits)
        return response

    async def _logits(
        self, outcome: Submission[np.ndarray] | ServiceError
    ) -> np.ndarray | ServiceError:
        if isinstance(outcome, ServiceError):
            return outcome
        try:
            batched = await outcome.result
        except Exception as error:  # noqa: BLE001 (the stream goes on)
            return self._service_error(error)
        self._record.ran(batched.queue_seconds, batched.run)
        return batched.result

    def _service_error(self, error: Exception) -> ServiceError:
        return as_service_error(error, self._record.peer, self._record.request_id)

    def _complete(self, submitted: _Submitted) -> None:
        if isinstance(submitted.outcome, Submission):
            submitted.outcome.complete()
        self._window.leave(submitted.images)

    def _drop_rest(self) -> None:
        while not self._submitted.empty():
            submitted = self._submitted.get_nowait()
            if submitted is not None:
                _drop(submitted.outcome)
                self._complete(submitted)


def _cancel(reader: asyncio.Task[None]) -> None:
    reader.cancel()


def _drop(outcome: Submission[np.ndarray] | ServiceError) -> None:
    """Let go of a result that nobody waits for, and of its error."""
    if isinstance(outcome, ServiceError) or outcome.result.cancel() or outcome.result.cancelled():
        return
    if (error := outcome.result.exception()) is not None:
        without_frames(error)
