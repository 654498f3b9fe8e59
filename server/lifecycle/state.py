"""The state of the server, for every transport: serving, draining, stopping."""

import asyncio


class ServingState:
    """Serving, then draining, then stopping; there is no way back."""

    def __init__(self) -> None:
        self._draining = asyncio.Event()
        self._stopping = asyncio.Event()

    @property
    def is_draining(self) -> bool:
        """Tell if the server accepts no more calls, or soon will not."""
        return self._draining.is_set()

    def drain(self) -> None:
        """Begin to drain: the server is not ready any more."""
        self._draining.set()

    def stop(self) -> None:
        """Begin to stop: watches of the state end."""
        self._stopping.set()

    async def wait_until_draining(self) -> None:
        """Return when the server drains."""
        await self._draining.wait()

    async def wait_until_stopping(self) -> None:
        """Return when the server stops."""
        await self._stopping.wait()
