"""A stream of requests, answered in order: read ahead within bounds, errors one by one."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sized
from dataclasses import dataclass, field
from functools import partial
from typing import Generic, TypeVar

from server.context import CallContext
from server.errors import ServiceError, UnavailableError, unforeseen, without_frames

Request = TypeVar("Request")
Checked = TypeVar("Checked", bound=Sized)  # a request's images, so many
Answer = TypeVar("Answer")

MOST_MESSAGES = 64  # that are read and not yet answered


class MessageCall:
    """One message of a stream as a call: it has left when its own answer has."""

    def __init__(self, stream: CallContext) -> None:
        self._stream = stream
        self._when_left: list[Callable[[], None]] = []

    @property
    def peer(self) -> str:
        """The stream's."""
        return self._stream.peer

    @property
    def deadline(self) -> float | None:
        """The stream's."""
        return self._stream.deadline

    def add_done_callback(self, callback: Callable[[], None]) -> None:
        """Call back when the message's answer has left."""
        self._when_left.append(callback)

    def when_draining(self, callback: Callable[[], None]) -> None:
        """Call back when the server wants the stream to end."""
        self._stream.when_draining(callback)

    def leave(self) -> None:
        """Tell that the answer has left."""
        for callback in self._when_left:
            callback()


@dataclass
class Window:
    """Bounds what is read and not yet answered; a message that is larger goes alone."""

    max_images: int
    messages: int = 0
    images: int = 0
    _admission: asyncio.Event = field(default_factory=asyncio.Event)

    def is_full(self, images: int) -> bool:
        """Tell if a message of so many images must wait."""
        return self.messages >= MOST_MESSAGES or (
            self.messages > 0 and self.images + images > self.max_images
        )

    async def room(self, images: int) -> None:
        """Wait until there is room for a message."""
        while self.is_full(images):
            self._admission.clear()
            await self._admission.wait()

    def enter(self, images: int) -> None:
        """Count a message in."""
        self.messages += 1
        self.images += images

    def leave(self, images: int) -> None:
        """Make room again."""
        self.messages -= 1
        self.images -= images
        self._admission.set()


@dataclass(frozen=True, slots=True)
class _Started(Generic[Checked, Answer]):
    call: MessageCall
    checked: Checked | None  # None: it is not right, or there is no room for it
    images: int
    answer: asyncio.Future[Answer] | ServiceError


class OrderedAnswers(Generic[Request, Checked, Answer]):
    """Answers the requests of one stream.

    `check` returns the images of a request or raises a ServiceError; `submit`, without
    a wait after `check`, starts them and returns a future of the answer, or raises one.
    """

    def __init__(
        self,
        check: Callable[[Request], Checked],
        submit: Callable[[Checked, CallContext], asyncio.Future[Answer]],
        call: CallContext,
        max_images: int,
    ) -> None:
        self._check = check
        self._submit = submit
        self._call = call
        self._window = Window(max_images)
        self._started: asyncio.Queue[_Started[Checked, Answer] | None] = asyncio.Queue()

    async def run(
        self, requests: AsyncIterator[Request | ServiceError]
    ) -> AsyncGenerator[tuple[Checked | None, Answer | ServiceError], None]:
        """Yield an answer or an error for each request, in order, with its images if it had some.

        Raises:
            UnavailableError: the server drains; what was read is answered.
        """
        reader = asyncio.create_task(self._read(requests))
        reader.add_done_callback(lambda _: self._started.put_nowait(None))
        self._call.when_draining(partial(_cancel, reader))
        try:
            while (started := await self._started.get()) is not None:
                try:
                    yield started.checked, await self._outcome(started)
                finally:
                    self._leave(started)
                del started  # not to be held while the stream waits for the next
            if reader.cancelled():
                raise UnavailableError(
                    "the server is shutting down; every request up to the last answer was "
                    "answered, send the rest to another"
                )
            await reader  # what the transport raised
        finally:
            reader.cancel()
            del reader  # it may hold an error that was raised through this frame
            self._drop_rest()

    async def _read(self, requests: AsyncIterator[Request | ServiceError]) -> None:
        async for request in requests:
            await self._start(request)
            del request  # not to be held while the stream waits for the next

    async def _start(self, request: "Request | ServiceError") -> None:
        call, count = MessageCall(self._call), 0
        checked: Checked | None = None
        answer: asyncio.Future[Answer] | ServiceError
        if isinstance(request, ServiceError):
            answer = request
        else:
            try:
                checked = self._check(request)
                if self._window.is_full(len(checked)):
                    await self._window.room(len(checked))
                    checked = self._check(request)  # what takes it may be another by now
                self._window.enter(len(checked))
                count = len(checked)
                answer = self._submit(checked, call)
            except ServiceError as error:
                answer = without_frames(error)
            except Exception as error:  # noqa: BLE001 (the stream goes on)
                answer = unforeseen(error, self._call.peer)
        if not count:
            await self._window.room(0)
            self._window.enter(0)
        self._started.put_nowait(_Started(call, checked, count, answer))

    async def _outcome(self, started: _Started[Checked, Answer]) -> Answer | ServiceError:
        if isinstance(started.answer, ServiceError):
            return started.answer
        try:
            return await started.answer
        except ServiceError as error:
            return without_frames(error)
        except Exception as error:  # noqa: BLE001 (the stream goes on)
            return unforeseen(error, self._call.peer)

    def _leave(self, started: _Started[Checked, Answer]) -> None:
        started.call.leave()
        self._window.leave(started.images)

    def _drop_rest(self) -> None:
        while not self._started.empty():
            started = self._started.get_nowait()
            if started is not None:
                _forget(started.answer)
                self._leave(started)


def _cancel(reader: asyncio.Task[None]) -> None:
    reader.cancel()


def _forget(answer: asyncio.Future[Answer] | ServiceError) -> None:
    """Let go of an answer that nobody waits for, and of its error."""
    if isinstance(answer, ServiceError) or answer.cancel() or answer.cancelled():
        return
    if (error := answer.exception()) is not None:
        without_frames(error)
