"""Ends calls with a status that is not OK."""

import asyncio
from typing import Any, Never

import grpc
from grpc_status import rpc_status

from server.errors import ServiceError, rich_status, without_frames
from server.observability.calls import CallObserver
from server.observability.records import CallRecord
from server.observability.request_id import REQUEST_ID


async def abort(
    context: grpc.aio.ServicerContext[Any, Any],
    code: grpc.StatusCode,
    text: str,
    trailing_metadata: tuple[tuple[str, str | bytes], ...] = (),
) -> Never:
    """End a call with a status, without a reference cycle of grpcio's.

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


async def fail(
    context: grpc.aio.ServicerContext[Any, Any],
    error: ServiceError,
    record: CallRecord,
    observer: CallObserver,
) -> Never:
    """End a call with an error and its record, which is reported before the caller can know it.

    Raises:
        AbortError: always; it is grpcio's, and has to get there.
    """
    record.rejection = error.rejection
    observer.end(record, error.status)
    rich = rpc_status.to_status(rich_status(error, record.request_id))
    trailing = (*rich.trailing_metadata, (REQUEST_ID, record.request_id))
    await abort(context, rich.code, rich.details, trailing)
