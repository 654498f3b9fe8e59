"""What is measured: requests, and the callers that send them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.load.h2load import Shape
from bench.load.requests import Request
from bench.servers.forward import Transport

STREAM_MESSAGES = 2000
ECHO, NATIVE_ECHO, TUTORIAL, INLINE = "echo", "native echo", "tutorial", "inline"
OURS: Mapping[Transport, str] = {"python": "Python", "native": "native"}
TRACED: Mapping[Transport, str] = {"python": "Python, traced", "native": "native, traced"}
ECHOES = (ECHO, NATIVE_ECHO)
BOTH, BOTH_TRACED = tuple(OURS.values()), tuple(TRACED.values())
UNARY_SERVERS = (*ECHOES, *BOTH)
OTHERS = (TUTORIAL, INLINE)


@dataclass(frozen=True)
class Beside:
    """Other requests that are sent at the same time; of these nothing is measured."""

    request: Request
    shape: Shape

    @property
    def note(self) -> str:
        """Say what it is, in a table."""
        return f" beside {self.shape.callers} callers of {self.request.title}"


@dataclass(frozen=True)
class Case:
    """Requests of one kind, from so many callers, to some of the servers."""

    request: Request
    shape: Shape
    servers: tuple[str, ...]
    note: str = ""
    beside: Beside | None = None

    @property
    def title(self) -> str:
        """Say what it is, in a table."""
        return f"{self.request.title}{self.note}{self.beside.note if self.beside else ''}"

    @property
    def callers(self) -> str:
        """Say who calls: connections, and streams on each if there are several."""
        streams = self.shape.callers // self.shape.connections
        if self.shape.connections == self.shape.callers:
            return str(self.shape.callers)
        return f"{self.shape.callers} ({self.shape.connections} x {streams})"

    @property
    def name(self) -> str:
        """Name it, for --only."""
        return f"{self.title}, {self.callers} caller{'s' * (self.shape.callers > 1)}"


SINGLE_CALLER, EIGHT_CALLERS, CONCURRENT_CALLERS = Shape(1, 1), Shape(8, 8), Shape(64, 8)
PREDICT_ONE = Request("Predict", 1)
SINGLE = Case(PREDICT_ONE, SINGLE_CALLER, (*UNARY_SERVERS, *OTHERS))
EIGHT = Case(PREDICT_ONE, EIGHT_CALLERS, (*UNARY_SERVERS, *OTHERS))
CONCURRENT = Case(PREDICT_ONE, CONCURRENT_CALLERS, (*UNARY_SERVERS, *OTHERS))
LARGE = tuple(
    Case(Request("Predict", images, dtype), EIGHT_CALLERS, UNARY_SERVERS)
    for images in (64, 512)
    for dtype in ("uint8", "float32")
)
TRACE_SINGLE = Case(Request("Trace", 1), SINGLE_CALLER, BOTH_TRACED)
TRACE_CONCURRENT = Case(Request("Trace", 1), CONCURRENT_CALLERS, BOTH_TRACED)
STREAM = Case(Request("PredictStream", 1), Shape(1, 1, STREAM_MESSAGES), BOTH)
INFERS = tuple(  # each beside the same of Predict
    (Case(Request("ModelInfer", beside.request.images), beside.shape, BOTH), beside)
    for beside in (SINGLE, CONCURRENT, LARGE[0])
)
INTERVENTIONS = tuple(  # each beside the trace without
    (
        Case(Request("Trace", images, intervenes=True), EIGHT_CALLERS, BOTH_TRACED),
        Case(Request("Trace", images), EIGHT_CALLERS, BOTH_TRACED),
    )
    for images in (1, 64)
)
ATTRIBUTIONS = tuple(  # each beside the trace of as many images
    (Case(Request("Attribute", trace.request.images), trace.shape, BOTH_TRACED), trace)
    for _, trace in INTERVENTIONS
)
AFTER = " after Trace"
AFTER_SINGLE = Case(PREDICT_ONE, SINGLE_CALLER, (*BOTH, *BOTH_TRACED), AFTER)
AFTER_CONCURRENT = Case(PREDICT_ONE, CONCURRENT_CALLERS, (*BOTH, *BOTH_TRACED), AFTER)
BESIDE_TRACE = Case(
    PREDICT_ONE, SINGLE_CALLER, BOTH_TRACED, beside=Beside(Request("Trace", 16), Shape(4, 4))
)
CASES: Sequence[Case] = (
    SINGLE,
    EIGHT,
    CONCURRENT,
    Case(PREDICT_ONE, Shape(64, 1), BOTH),
    Case(PREDICT_ONE, Shape(64, 64), BOTH),
    *LARGE,
    STREAM,
    *(case for case, _ in INFERS),
    TRACE_SINGLE,
    TRACE_CONCURRENT,
    *(case for pair in INTERVENTIONS for case in pair),
    *(case for case, _ in ATTRIBUTIONS),
    Case(Request("Trace", 1, detail="full"), SINGLE_CALLER, BOTH_TRACED),
    Case(Request("Trace", 1, detail="full"), CONCURRENT_CALLERS, BOTH_TRACED),
    AFTER_SINGLE,
    AFTER_CONCURRENT,
    BESIDE_TRACE,
)
