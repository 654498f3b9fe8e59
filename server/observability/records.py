"""What is known of one call."""

import time
from collections.abc import Callable
from typing import Literal

from server.errors import Rejection
from server.observability.engine_metrics import BatcherName
from server.observability.request_id import make_request_id
from server.observability.runs import Run
from server.observability.traceparent import TraceParent

Transport = Literal["grpc", "http"]
# What a call waits for: its request, a place in a run, the run, its response, the client; of a
# stream, its latest message.
Phase = Literal["read", "queue", "run", "encode", "write"]


class CallRecord:
    """What is known of one call; of a stream, sums over its messages.

    Attributes:
        method: "/forward.v1.ForwardService/Predict"; "unknown" for one that is not there.
        started: when it began, a time of time.perf_counter.
        span: its own, if it is traced.
        images: those that were right.
        queue_seconds: that they waited for their runs.
        run_seconds: of these runs, which other requests may have shared.
        run: that of the request; None of a stream.
        encode_seconds: that it took to make the responses, the last of which from
            `encode_started`, a time of time.perf_counter.
        batcher: what ran them; None: nothing did.
        model, model_version: that answered; "" and 0: none was asked.
        pack_seconds: that it took to make the response where its run was, which had ended.
        trace_detail: the largest of the stages in the response of a trace.
        rejection: why it was refused, where the status does not tell.
        status: the name of a grpc.StatusCode, from the end on; before it where it is known.
        seconds: from its begin to its end.
    """

    __slots__ = (
        "_peer",
        "_request_id",
        "batcher",
        "encode_seconds",
        "encode_started",
        "encoding_since",
        "images",
        "method",
        "model",
        "model_version",
        "observe_run",
        "pack_seconds",
        "phase",
        "queue_seconds",
        "rejection",
        "request_bytes",
        "response_bytes",
        "run",
        "run_seconds",
        "seconds",
        "span",
        "started",
        "status",
        "trace_detail",
        "traceparent",
        "transport",
    )

    def __init__(
        self,
        method: str,
        transport: Transport,
        peer: str | Callable[[], str],
        request_id: str = "",
        traceparent: TraceParent | None = None,
    ) -> None:
        self.method = method
        self.transport = transport
        self._peer = peer
        self._request_id = request_id
        self.traceparent = traceparent
        self.started = time.perf_counter()
        self.images = self.request_bytes = self.response_bytes = self.model_version = 0
        self.queue_seconds = self.run_seconds = self.encode_seconds = self.seconds = 0.0
        self.pack_seconds = self.encoding_since = self.encode_started = 0.0
        self.model = self.trace_detail = self.status = ""
        self.batcher: BatcherName | None = None
        self.phase: Phase = "read"
        self.run: Run | None = None
        self.span: TraceParent | None = None
        self.observe_run: Callable[[Run], None] | None = None
        self.rejection: Rejection | None = None

    @property
    def request_id(self) -> str:
        """The id of the request as it came, or made when somebody first asks."""
        if not self._request_id:
            self._request_id = make_request_id()
        return self._request_id

    @property
    def has_id(self) -> bool:
        """Tell whether the id came, or was made for somebody: the log, a span, an error."""
        return bool(self._request_id)

    @property
    def peer(self) -> str:
        """Where the call comes from; to ask gRPC takes a while, so it is asked when it matters."""
        if not isinstance(self._peer, str):
            self._peer = self._peer()
        return self._peer

    @property
    def trace_id(self) -> str | None:
        """The trace that the call belongs to, also where nobody records it."""
        span = self.span or self.traceparent
        return span.trace_id if span else None

    def asked(self, identity: tuple[str, int, str], images: int = 0) -> None:
        """Note name, version and runtime of the model that is asked, and images for it."""
        self.model, self.model_version, _ = identity
        self.images += images

    def ran(self, queue_seconds: float, run: Run, seconds: float | None = None) -> None:
        """Note a run; from now on its response is made, if it was not packed where the run was.

        `seconds` are those of the runtime, if the run did more than that.
        """
        self.phase = "encode"
        self.run = run if self.batcher is None else None
        self.batcher = run.batcher
        self.queue_seconds += queue_seconds
        self.run_seconds += run.seconds if seconds is None else seconds
        self.encoding_since = time.perf_counter() - self.pack_seconds
        if self.observe_run is not None:
            self.observe_run(run)

    def encoded(self, response_bytes: int) -> float:
        """Note that a response is made; return the seconds that it took, 0 if nothing was run."""
        self.response_bytes += response_bytes
        self.phase = "write"
        if not self.encoding_since:
            return 0.0
        seconds = time.perf_counter() - self.encoding_since
        self.encode_started = self.encoding_since
        self.encoding_since = 0.0  # the next response of a stream may be an error, of no run
        self.encode_seconds += seconds
        return seconds
