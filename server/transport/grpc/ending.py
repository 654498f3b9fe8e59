"""Ends a call with a status that is not OK, without a reference cycle of grpcio's."""

import asyncio
from typing import Any, Never

import grpc

from server.errors import without_frames


async def abort(
    context: grpc.aio.ServicerContext[Any, Any],
    code: grpc.StatusCode,
    text: str,
    trailing_metadata: tuple[tuple[str, str | bytes], ...] = (),
) -> Never:
    """End a call with a status.

    grpcio keeps the exception that it raises in the state of the call, which the frames of the
    exception refer to: a cycle, and with it the request, until garbage is collected. So the frames
    are let go of when the call has ended.

    Raises:
        AbortError: always; it is grpcio's, and has to get there.
    """
    task: Any = asyncio.current_task()  # grpcio's, of this call
    try:
        await context.abort(code, text, trailing_metadata)
    except grpc.aio.AbortError as aborted:
        raised = aborted  # the name after `as` ends with its block, the callback does not
        task.add_done_callback(lambda _: without_frames(raised))
        raise
