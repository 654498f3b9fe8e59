"""The tables of a run of `bench.scenarios.speed`."""

from collections.abc import Callable, Iterator, Sequence

from bench.reports.tables import Limit, limits_table, number, table
from bench.scenarios.cases import (
    AFTER_CONCURRENT,
    AFTER_SINGLE,
    ATTRIBUTIONS,
    CONCURRENT,
    ECHO,
    INFERS,
    INLINE,
    INTERVENTIONS,
    LARGE,
    OURS,
    SINGLE,
    STREAM,
    TRACE_CONCURRENT,
    TRACE_SINGLE,
    TRACED,
    TUTORIAL,
    UNARY_SERVERS,
    Case,
)
from bench.scenarios.measure import Figures
from bench.scenarios.speed import Results

AS_FAST = 1.05  # what two runs of the same server may differ by


def report(results: Results, cases: Sequence[Case], rounds: int, seconds: int) -> str:
    """Return all tables."""
    unary = [case for case in cases if case.servers == UNARY_SERVERS]
    parts = [
        f"Median of {rounds} rounds of {seconds} s, with minimum and maximum; the servers in turn "
        "within a round. F(n): the echo's CPU for the same bytes from the same callers, and one "
        "forward pass of n images in process on one thread.",
        "### Limits",
        limits_table(list(limits(results))),
        "### Server CPU for each request, µs",
        _side_by_side(results, unary) if unary else "Not measured.",
        "### Images a second for each core of server CPU",
        _images(results, [case for case in LARGE if case in unary]),
        "### All figures",
        "Of PredictStream, CPU and rate are those of a message, latencies those of the whole "
        f"stream of {STREAM.shape.messages_per_request:,}.",
        _details(results, cases),
    ]
    return "\n\n".join(part.strip() for part in parts)


def limits(results: Results) -> Iterator[Limit]:
    """Yield the figures that have a limit, as far as they were measured."""
    parts = (_concurrent, _single, _large, _stream, _infer, _trace)
    for part in (*parts, _interventions, _attributions, _after):
        yield from part(results)


def _concurrent(results: Results) -> Iterator[Limit]:
    if results.has(CONCURRENT, OURS):
        what, ours = "CPU, 1 image, 64 callers", results.cpu(CONCURRENT, OURS)
        yield Limit(what, ours, "F(1)", results.floor(CONCURRENT), 0.80)
        yield Limit(what, ours, "tutorial", results.cpu(CONCURRENT, TUTORIAL), 0.45)


def _single(results: Results) -> Iterator[Limit]:
    if results.has(SINGLE, OURS):
        ours, inline = (results.median(SINGLE, server, _p50) for server in (OURS, INLINE))
        yield Limit("p50, 1 image, 1 caller", ours, "inline", inline, 1.1, "ms")


def _large(results: Results) -> Iterator[Limit]:
    for case in LARGE:
        if results.has(case, OURS):
            images, dtype = case.request.images, case.request.dtype
            what = f"CPU, {images} {dtype} images, 8 callers"
            yield Limit(what, results.cpu(case, OURS), f"F({images})", results.floor(case), 1.1)


def _stream(results: Results) -> Iterator[Limit]:
    if results.has(STREAM, OURS):
        ours, floor = results.cpu(STREAM, OURS), results.floor(CONCURRENT)
        yield Limit("CPU, PredictStream, a message", ours, "F(1)", floor, 0.5)


def _infer(results: Results) -> Iterator[Limit]:
    for case, predict in INFERS:
        if results.has(case, OURS):
            what = f"CPU, {case.name}"
            yield Limit(what, results.cpu(case, OURS), "Predict", results.cpu(predict, OURS), 1.1)


def _trace(results: Results) -> Iterator[Limit]:
    for case, predict in ((TRACE_SINGLE, SINGLE), (TRACE_CONCURRENT, CONCURRENT)):
        if results.has(case, TRACED):
            callers = "caller" if case.shape.callers == 1 else "callers"
            what = f"CPU, Trace statistics, {case.shape.callers} {callers}"
            yield Limit(what, results.cpu(case, TRACED), "Predict", results.cpu(predict, OURS), 1.5)


def _interventions(results: Results) -> Iterator[Limit]:
    for case, without in INTERVENTIONS:
        if results.has(case, TRACED):
            what = f"CPU, {case.name}"
            plain = results.cpu(without, TRACED)
            yield Limit(what, results.cpu(case, TRACED), "without", plain, 1.5)


def _attributions(results: Results) -> Iterator[Limit]:
    for case, trace in ATTRIBUTIONS:
        if results.has(case, TRACED) and results.has(trace, TRACED):
            what, traced = f"CPU, {case.name}", results.cpu(trace, TRACED)
            yield Limit(what, results.cpu(case, TRACED), "Trace", traced, 2.0)


def _after(results: Results) -> Iterator[Limit]:
    if results.has(AFTER_SINGLE, TRACED):
        traced, ours = (results.median(AFTER_SINGLE, server, _p50) for server in (TRACED, OURS))
        yield Limit("p50, Predict after Trace, 1 caller", traced, "without", ours, AS_FAST, "ms")
    if results.has(AFTER_CONCURRENT, TRACED):
        traced, ours = (results.cpu(AFTER_CONCURRENT, server) for server in (TRACED, OURS))
        yield Limit("CPU, Predict after Trace, 64 callers", traced, "without", ours, AS_FAST)


def _p50(figures: Figures) -> float:
    return figures.p50


def _cpu(figures: Figures) -> float:
    return figures.cpu


def _spread(results: Results, case: Case, server: str, of: Callable[[Figures], float]) -> str:
    values = results.all(case, server, of)
    median = number(results.median(case, server, of))
    return f"{median} ({number(min(values))} to {number(max(values))})"


def _side_by_side(results: Results, cases: Sequence[Case]) -> str:
    headings = (
        *("request", "callers", ECHO, "forward", "F(n)", TUTORIAL, INLINE, OURS),
        *("ours / echo", "ours / F(n)", "ours / tutorial", "ours / inline"),
    )
    rows = []
    for case in cases:
        echo, tutorial, inline, ours = (results.cpu(case, server) for server in UNARY_SERVERS)
        forward, floor = results.forward(case.request.images), results.floor(case)
        spread = {server: _spread(results, case, server, _cpu) for server in UNARY_SERVERS}
        rows.append(
            (
                *(case.title, case.callers, spread[ECHO], number(forward), number(floor)),
                *(spread[TUTORIAL], spread[INLINE], spread[OURS]),
                *(f"{ours / other:.2f}" for other in (echo, floor, tutorial, inline)),
            )
        )
    return table(headings, rows, left=2)


def _images(results: Results, cases: Sequence[Case]) -> str:
    """Return the images for each second of CPU; ONNX Runtime in process is the limit."""
    headings = ("request", "in process", "F(n)", TUTORIAL, INLINE, OURS, "ours / in process")
    rows = []
    for case in cases:
        images = case.request.images
        limit = results.forward(images)
        times = (limit, results.floor(case), *(results.cpu(case, s) for s in UNARY_SERVERS[1:]))
        ratio = f"{limit / results.cpu(case, OURS):.2f}"
        rows.append((case.title, *(number(images / each * 1e6) for each in times), ratio))
    return table(headings, rows)


def _details(results: Results, cases: Sequence[Case]) -> str:
    headings = ("request", "callers", "server", "CPU, µs", "a second", "p50, ms", "p99, ms", "MiB")
    rows = [
        (
            *(case.title, case.callers, server),
            _spread(results, case, server, _cpu),
            number(results.median(case, server, lambda figures: figures.rate)),
            _spread(results, case, server, _p50),
            _spread(results, case, server, lambda figures: figures.p99),
            number(results.median(case, server, lambda figures: figures.mebibytes)),
        )
        for case in cases
        for server in case.servers
    ]
    return table(headings, rows, left=3)
